/*
 * rest_listen.c
 *	  Where REST is served: at an address or at a path.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "rest_internal.h"
#include "settings.h"

static char address_text[300];

static int
listen_unix(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			fd;

	if (strlen(path) >= sizeof(address.sun_path))
	{
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	/* Of one who crashed; nobody who lives can be connected to there. */
	if (connect(fd, (struct sockaddr *) &address, sizeof(address)) != 0 && errno == ECONNREFUSED)
		(void) unlink(path);
	if (bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
	{
		close(fd);
		return -1;
	}
	snprintf(address_text, sizeof(address_text), "unix:%s", path);
	return fd;
}

static void
note_address(int fd)
{
	struct sockaddr_storage address;
	socklen_t	length = sizeof(address);
	char		host[100];
	char		port[20];

	if (getsockname(fd, (struct sockaddr *) &address, &length) == 0 &&
		getnameinfo((struct sockaddr *) &address, length, host, sizeof(host), port, sizeof(port),
					NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(address_text, sizeof(address_text),
				 address.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host, port);
}

static int
listen_tcp(const char *where)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	char	   *host = text_copy(where);
	char	   *port = strrchr(host, ':');
	const int	on = 1;
	int			fd = -1;

	errno = EINVAL;
	if (port != NULL)
	{
		*port++ = '\0';
		if (host[0] == '[' && port[-2] == ']')
		{
			port[-2] = '\0';
			memmove(host, host + 1, strlen(host));
		}
		if (getaddrinfo(*host != '\0' ? host : NULL, port, &hints, &found) == 0)
		{
			fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (fd >= 0)
				setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
			if (fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) != 0)
			{
				close(fd);
				fd = -1;
			}
			freeaddrinfo(found);
		}
	}
	free(host);
	if (fd >= 0)
		note_address(fd);
	return fd;
}

/*
 * A socket that listens where the setting says; -1, and it was said why not.
 */
int
listener_open(void)
{
	const char *where = setting_text("listen");
	int			fd = strncmp(where, "unix:", 5) == 0 ? listen_unix(where + 5) : listen_tcp(where);

	if (fd >= 0 && listen(fd, 511) == 0)
		return fd;
	complain("could not listen on %s: %s", where, strerror(errno));
	return -1;
}

const char *
listener_address(void)
{
	return address_text;
}
