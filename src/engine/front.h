/*
 * front.h
 *	  Where in a lane the tokens begin that nobody has claimed yet.
 */
#ifndef TASKER_FRONT_H
#define TASKER_FRONT_H

#include "postgres.h"

#include "storage/spin.h"
#include "utils/timestamp.h"

#include "tasker.h"

#define FRONT_LANES		(LANE_ALONE + 1)	/* those of executors */
#define FRONT_PARTS		16		/* ranks that are kept apart */
#define FRONT_NEWS		64		/* of the latest tokens that are remembered */

/* Of a rank, everything due earlier is claimed, or being claimed. */
typedef struct FrontPart
{
	int32		rank;
	TimestampTz due;
} FrontPart;

/* In front of a claim; what a claim found out, or the shared state itself. */
typedef struct Front
{
	uint32		count;			/* of all tokens ever noted */
	bool		open;			/* no rank is known: everything is to be read */
	int32		rest;			/* else ranks above this one are to be read as a whole */
	int			parts;			/* others are to be read from there on, or hold nothing */
	FrontPart	part[FRONT_PARTS];	/* in the order of ranks */
} Front;

typedef struct LaneFront
{
	slock_t		mutex;
	Front		front;
	TimestampTz whole_due;		/* when everything is read again, to be on the safe side */
	FrontPart	news[FRONT_NEWS];	/* by front.count, the latest tokens */
} LaneFront;

extern void front_init(LaneFront *lanes);
extern void front_reset(LaneFront *lanes);
extern void front_note(LaneFront *lane, int32 rank, TimestampTz due);
extern bool front_read(LaneFront *lane, Front *front, TimestampTz now);
extern void front_write(LaneFront *lane, const Front *before, const Front *after);
extern void front_was_whole(LaneFront *lane, TimestampTz began, TimestampTz ended);
extern bool front_set(Front *front, int32 rank, TimestampTz due);

#endif							/* TASKER_FRONT_H */
