/*
 * run.c
 *	  Runs the roles: starts them, says when they are ready, and does what the
 *	  signals say.  SIGTERM and SIGINT drain and end, a second one ends at once;
 *	  SIGHUP reads the file of settings anew.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "log.h"
#include "role.h"
#include "settings.h"

static const Role *const all_roles[] = {&http_role, &rest_role};

#define ROLES	(sizeof(all_roles) / sizeof(all_roles[0]))

typedef enum Phase
{
	STARTING,
	READY,
	DRAINING,
	ENDED
} Phase;

static const Role *roles[ROLES];
static size_t role_count;
static int	wake_fd = -1;
static Phase phase;
static long long drain_until;

void
run_wake(void)
{
	waker_call(wake_fd);
}

/* Tells systemd, if it is that which started us; otherwise nobody. */
static void
notify_supervisor(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t		length = path == NULL ? 0 : strlen(path);
	int			fd;

	if (length == 0 || length >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void) sendto(fd, state, strlen(state), 0, (struct sockaddr *) &address,
				  (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length));
	close(fd);
}

/* The line that whoever started the program waits for. */
static void
say_ready(void)
{
	printf("tasker-agent is ready:");
	for (size_t i = 0; i < role_count; i++)
	{
		const char *address = roles[i]->address();

		printf("%s %s%s%s", i > 0 ? "," : "", roles[i]->name, address == NULL ? "" : " on ",
			   address == NULL ? "" : address);
	}
	putchar('\n');
	fflush(stdout);
	notify_supervisor("READY=1");
}

static bool
all_are(bool (*ask) (const Role *role))
{
	for (size_t i = 0; i < role_count; i++)
		if (!ask(roles[i]))
			return false;
	return true;
}

static bool
role_is_ready(const Role *role)
{
	return role->is_ready();
}

static bool
role_is_idle(const Role *role)
{
	return role->is_idle();
}

static void
drain(void)
{
	if (phase == DRAINING)
	{
		log_line(LOG_WARNING, "ending at once, whatever is under way", NULL);
		phase = ENDED;
		return;
	}
	log_line(LOG_INFO, "ending; what is under way may finish", NULL);
	notify_supervisor("STOPPING=1");
	phase = DRAINING;
	drain_until = clock_ms() + setting_ms("drain-timeout");
	for (size_t i = 0; i < role_count; i++)
		roles[i]->drain();
}

static void
reload(void)
{
	if (!settings_reload())
	{
		log_line(LOG_WARNING, "the settings stay as they were", NULL);
		return;
	}
	for (size_t i = 0; i < role_count; i++)
		roles[i]->reload();
	log_line(LOG_INFO, "the settings were read anew", NULL);
}

static void
take_signals(int signal_fd)
{
	struct signalfd_siginfo signal;

	while (read(signal_fd, &signal, sizeof(signal)) == (ssize_t) sizeof(signal))
	{
		if (signal.ssi_signo == SIGHUP)
			reload();
		else
			drain();
	}
}

/* What has come about meanwhile. */
static void
look(void)
{
	if (phase == STARTING && all_are(role_is_ready))
	{
		phase = READY;
		say_ready();
	}
	if (phase == DRAINING && all_are(role_is_idle))
		phase = ENDED;
	if (phase == DRAINING && clock_ms() >= drain_until)
	{
		log_line(LOG_WARNING, "what is under way took longer than drain-timeout", NULL);
		phase = ENDED;
	}
}

static void
loop(int signal_fd)
{
	struct pollfd fds[] = {{.fd = signal_fd, .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};

	for (;;)
	{
		long long	left = -1;

		look();
		if (phase == ENDED)
			return;
		if (phase == DRAINING)
			left = drain_until - clock_ms();
		if (poll(fds, 2, (int) left) < 0 && errno != EINTR)
			return;
		waker_clear(wake_fd);
		take_signals(signal_fd);
	}
}

/* Before there are threads, which inherit what is blocked. */
static int
open_signals(void)
{
	sigset_t	handled;

	sigemptyset(&handled);
	sigaddset(&handled, SIGTERM);
	sigaddset(&handled, SIGINT);
	sigaddset(&handled, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &handled, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &handled, SFD_NONBLOCK | SFD_CLOEXEC);
}

static bool
start_roles(void)
{
	for (size_t i = 0; i < ROLES; i++)
	{
		if (!list_has(setting_text("roles"), all_roles[i]->name))
			continue;
		if (!all_roles[i]->start())
			return false;
		roles[role_count++] = all_roles[i];
	}
	return true;
}

int
run_roles(void)
{
	int			signal_fd = open_signals();
	bool		started;

	wake_fd = waker_open();
	if (signal_fd < 0 || wake_fd < 0)
	{
		complain("could not start: %s", strerror(errno));
		return EXIT_FAILED;
	}
	phase = STARTING;
	started = start_roles();
	if (started)
		loop(signal_fd);
	for (size_t i = 0; i < role_count; i++)
		roles[i]->stop();
	if (started)
		log_line(LOG_INFO, "ended", NULL);
	return started ? EXIT_OK : EXIT_FAILED;
}
