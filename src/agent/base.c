/*
 * base.c
 *	  What all of tasker-agent uses: what is wrong said, memory, texts, time.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent.h"

/*
 * Says on stderr what is wrong.
 */
void
complain(const char *format, ...)
{
	va_list		arguments;

	fputs("tasker-agent: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

void *
allocate(size_t size)
{
	void	   *memory = malloc(size > 0 ? size : 1);

	if (memory == NULL)
	{
		complain("out of memory");
		exit(EXIT_FAILED);
	}
	return memory;
}

char *
text_copy(const char *text)
{
	return strcpy(allocate(strlen(text) + 1), text);
}

char *
text_format(const char *format, ...)
{
	va_list		arguments;
	char	   *text;
	int			length;

	va_start(arguments, format);
	length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	text = allocate((size_t) length + 1);
	va_start(arguments, format);
	vsnprintf(text, (size_t) length + 1, format, arguments);
	va_end(arguments);
	return text;
}

/* A time that only goes on, in ms. */
long long
clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
