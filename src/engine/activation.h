/*
 * activation.h
 *	  Whether the engine may run in this database, and the base of log ids.
 *
 * Both are cached in each backend and read again after tasker.activation or
 * tasker.origin has changed.  Call them inside a transaction.
 */
#ifndef TASKER_ACTIVATION_H
#define TASKER_ACTIVATION_H

#include "postgres.h"

typedef enum EngineState
{
	ENGINE_ACTIVE,
	ENGINE_RESTORED,			/* a restored or copied database */
	ENGINE_DEACTIVATED			/* tasker.deactivate() */
} EngineState;

extern EngineState engine_state(void);
extern bool engine_may_run(void);

/*
 * What is added to a transaction id to make the upper bits of its log ids.
 * The first call after a restore into another server writes it down, so call
 * it only where something is about to be written.
 */
extern int64 engine_xid_base(void);

/* Rises whenever one of the two tables may have changed, or gone. */
extern uint32 activation_changes(void);
extern void activation_watch(void);

#endif							/* TASKER_ACTIVATION_H */
