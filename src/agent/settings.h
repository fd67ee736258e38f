/*
 * settings.h
 *	  What tasker-agent can be told: by flags, environment and a file.
 *
 * settings.c has the table.  A setting is known by the name of its flag.
 */
#ifndef TASKER_AGENT_SETTINGS_H
#define TASKER_AGENT_SETTINGS_H

#include <stdbool.h>
#include <stdio.h>

/*
 * Reads the command line, behind the program's name, then the environment, then
 * the file that either names.  False, and it was said what is wrong.
 */
extern bool settings_read(int argc, char **argv);

/* Reads the file anew; what can't change while the program runs stays. */
extern bool settings_reload(void);

/* Each setting, with what it means. */
extern void settings_print_help(FILE *file);

/*
 * The value of a setting; the name must be one of the table's, and of that type.
 * A text lives for ever, or is NULL where nothing was said.
 */
extern const char *setting_text(const char *name);
extern long setting_number(const char *name);
extern bool setting_flag(const char *name);
extern long setting_ms(const char *name);
extern long long setting_bytes(const char *name);

/* Whether a list, with commas between, has that word in it. */
extern bool list_has(const char *list, const char *word);

#endif							/* TASKER_AGENT_SETTINGS_H */
