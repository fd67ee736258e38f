/*
 * claim.h
 *	  How an executor gets at the tokens of a lane.
 */
#ifndef TASKER_CLAIM_H
#define TASKER_CLAIM_H

#include "state/state.h"

extern int	claim_tokens(Batch *batch, int lane, int limit);
extern void claim_forget_places(void);
extern TimestampTz claim_whole_due(void);

#endif							/* TASKER_CLAIM_H */
