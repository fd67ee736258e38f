/*
 * log.c
 *	  The log of tasker-agent.  A line is one write(), so that those of several
 *	  threads don't mix.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "log.h"
#include "settings.h"

static const char *const level_names[] = {"debug", "info", "warning", "error"};

static LogLevel
least_level(void)
{
	const char *name = setting_text("log-level");

	for (size_t i = 0; name != NULL && i < sizeof(level_names) / sizeof(level_names[0]); i++)
		if (strcmp(level_names[i], name) == 0)
			return (LogLevel) i;
	return LOG_INFO;
}

bool
log_wants(LogLevel level)
{
	return level >= least_level();
}

/* As JSON wants it, and harmless in a terminal, too. */
static void
write_quoted(FILE *line, const char *text)
{
	fputc('"', line);
	for (; *text != '\0'; text++)
	{
		unsigned char c = (unsigned char) *text;

		if (c == '"' || c == '\\')
			fputc('\\', line);
		if (c < 0x20 || c == 0x7f)
			fprintf(line, "\\u%04x", c);
		else
			fputc(c, line);
	}
	fputc('"', line);
}

/* A name and its value, in either form. */
static void
write_pair(FILE *line, bool json, const char *name, const char *value)
{
	if (json)
	{
		fputc(',', line);
		write_quoted(line, name);
		fputc(':', line);
		write_quoted(line, value);
	}
	else
	{
		fprintf(line, " %s=", name);
		if (*value == '\0' || strpbrk(value, " \t\r\n\"\\=") != NULL)
			write_quoted(line, value);
		else
			fputs(value, line);
	}
}

static void
write_time(FILE *line)
{
	struct timespec now;
	struct tm	parts;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	fprintf(line, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", parts.tm_year + 1900, parts.tm_mon + 1,
			parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, now.tv_nsec / 1000000);
}

void
log_line(LogLevel level, const char *message, ...)
{
	const char *format = setting_text("log-format");
	bool		json = format != NULL && strcmp(format, "json") == 0;
	char	   *text = NULL;
	size_t		length = 0;
	FILE	   *line;
	va_list		pairs;
	const char *name;

	if (!log_wants(level) || (line = open_memstream(&text, &length)) == NULL)
		return;
	if (json)
		fputs("{\"timestamp\":\"", line);
	write_time(line);
	if (json)
	{
		fprintf(line, "\",\"level\":\"%s\",\"message\":", level_names[level]);
		write_quoted(line, message);
	}
	else
		fprintf(line, " %s: %s", level_names[level], message);
	va_start(pairs, message);
	while ((name = va_arg(pairs, const char *)) != NULL)
	{
		const char *value = va_arg(pairs, const char *);

		if (value != NULL)
			write_pair(line, json, name, value);
	}
	va_end(pairs);
	fputs(json ? "}\n" : "\n", line);
	if (fclose(line) == 0 && write(STDERR_FILENO, text, length) < 0)
	{
		/* There is nobody left to tell. */
	}
	free(text);
}
