/*
 * limit.h
 *	  No more steps at once than tasker.max_in_progress allows.
 */
#ifndef TASKER_LIMIT_H
#define TASKER_LIMIT_H

#include "postgres.h"

#include "shared_memory.h"

typedef struct StepLimit
{
	int32		limit_id;
	int32		steps;
} StepLimit;

extern bool limit_take(const StepLimit *limits, int count, int32 *which);
extern bool limit_take_lease(const StepLimit *limits, int count);
extern void limit_unpark(int32 limit_id, int tokens);
extern void limit_unpark_held(int tokens);
extern bool limit_sweep(void);

#endif							/* TASKER_LIMIT_H */
