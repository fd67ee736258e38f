/*
 * log.h
 *	  The log of tasker-agent: a line an event, to stderr.
 */
#ifndef TASKER_AGENT_LOG_H
#define TASKER_AGENT_LOG_H

#include <stdbool.h>

typedef enum LogLevel
{
	LOG_DEBUG,
	LOG_INFO,
	LOG_WARNING,
	LOG_ERROR
} LogLevel;

/*
 * Writes a line: what happened, and names with values, all texts, up to a NULL.
 * A value that is NULL is left out with its name.  Nobody passes credentials.
 */
extern void log_line(LogLevel level, const char *message, ...) __attribute__((sentinel));

/* Whether a line of that level would be written. */
extern bool log_wants(LogLevel level);

#endif							/* TASKER_AGENT_LOG_H */
