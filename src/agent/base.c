/*
 * base.c
 *	  What all of tasker-agent uses: what is wrong said, memory, texts, time,
 *	  and how a thread wakes another that polls.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

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

/* A descriptor that is readable once somebody has called; -1: there is none. */
int
waker_open(void)
{
	return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void
waker_call(int waker)
{
	const uint64_t one = 1;

	if (write(waker, &one, sizeof(one)) < 0)
	{
		/* It has been called already. */
	}
}

void
waker_clear(int waker)
{
	uint64_t	calls;

	if (read(waker, &calls, sizeof(calls)) < 0)
	{
		/* Nobody called. */
	}
}
