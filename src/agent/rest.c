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
	return pool_start() && server_start();
}

static void
reload(void)
{
}

/* The pool first: who waits for it holds a connection of the server. */
static void
stop(void)
{
	pool_stop();
	server_stop();
}

const Role rest_role = {"rest", start, pool_is_ready, server_address, reload, server_drain, server_is_idle, stop};
