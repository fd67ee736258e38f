/*
 * rest.c
 *	  The role rest: the API and the pages.
 */
#include <stddef.h>

#include "rest_internal.h"
#include "role.h"

static bool
start(void)
{
	if (!auth_start())
		return false;
	pages_load();
	return pool_start() && events_start() && server_start();
}

static void
drain(void)
{
	server_drain();
	events_drain();
}

/* The pool first: who waits for it holds a connection of the server. */
static void
stop(void)
{
	pool_stop();
	events_stop();
	server_stop();
	auth_stop();
}

const Role rest_role = {"rest", start, pool_is_ready, listener_address, auth_reload, drain, server_is_idle, stop};
