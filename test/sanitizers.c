/*
 * sanitizers.c
 *	  What the sanitizers do in a tasker-agent that is built with them
 *	  (AGENT_SANITIZE): linked into it, since the process that draws diagrams has no
 *	  environment which could say so.
 *
 * A report goes beside the program, into PROGRAM.report.PID: tests keep what the
 * agent writes to stderr, compare it, or throw it away.  The exit status that
 * follows is none of the agent's own.
 */
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

extern const char *__asan_default_options(void);
extern const char *__ubsan_default_options(void);

/*
 * They are asked for before anything is set up: so nothing here is checked, and
 * nothing is called that a sanitizer stands before.
 */
#define EARLY	__attribute__((no_sanitize("address", "undefined")))

static char options[2048];

/* Appends as much of the text as there is room for. */
EARLY static size_t
append(size_t length, const char *text)
{
	while (*text != '\0' && length < sizeof(options) - 1)
		options[length++] = *text++;
	return length;
}

EARLY const char *
__asan_default_options(void)
{
	size_t		length = append(0, "exitcode=86:detect_leaks=1:detect_stack_use_after_return=1:"
								"check_initialization_order=1:strict_string_checks=1:print_stacktrace=1:log_path='");
	long		read = syscall(SYS_readlink, "/proc/self/exe", options + length, sizeof(options) - length);

	length = append(length + (read > 0 ? (size_t) read : 0), ".report'");
	options[length] = '\0';
	return options;
}

EARLY const char *
__ubsan_default_options(void)
{
	return __asan_default_options();
}
