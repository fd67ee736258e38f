/*
 * rest.c
 *	  The role rest: being built.
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

const Role rest_role = {"rest", yes, yes, nowhere, nothing, nothing, yes, nothing};
