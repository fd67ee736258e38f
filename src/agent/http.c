/*
 * http.c
 *	  The role http: being built.
 */
#include <stddef.h>

#include "agent.h"
#include "role.h"

static bool
yes(void)
{
	return true;
}

static void
nothing(void)
{
}

static const char *
nowhere(void)
{
	return NULL;
}

const Role http_role = {"http", yes, yes, nowhere, nothing, nothing, yes, nothing};
