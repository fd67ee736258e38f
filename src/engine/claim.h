/*
 * claim.h
 *	  How an executor gets at the tokens of a lane.
 */
#ifndef TASKER_CLAIM_H
#define TASKER_CLAIM_H

#include "state/state.h"

extern int	claim_tokens(Batch *batch, int lane, int limit);

#endif							/* TASKER_CLAIM_H */
