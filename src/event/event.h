/*
 * event.h
 *	  What the parts of this room need of each other.
 */
#ifndef TASKER_EVENT_H
#define TASKER_EVENT_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "utils/timestamp.h"

/* A place that was moved over so many ticks is worth a write, though nothing was found. */
#define STALE_TICKS		1000

/* match.c: what a subscriber was registered behind. */
typedef struct Birth
{
	bool		is_known;
	int64		next;			/* rows of transactions below it were there before ... */
	int64	   *running;		/* ... but those of these */
	int			running_count;
} Birth;

/*
 * Two columns of a row of SPI_tuptable, which it points into; and whether the
 * snapshot of the registration did not show a row of the log.
 */
extern void birth_read(uint64 row, int column, Birth *birth);
extern bool birth_precedes(const Birth *birth, int64 row_id);

/*
 * describe.c: adds a row for each event that is still there, with its place in
 * front where that is asked for; returns how many.  Within an SPI connection.
 */
extern int	events_describe(const int64 *event_ids, const int64 *row_ids, int count,
							ReturnSetInfo *result, bool with_place);

/* describe.c, too: when it happened; 0: it is there no more. */
extern TimestampTz events_happened_at(int64 event_id, int64 row_id);

/* wait.c: whether there was anything to wait for; whether there is a tick after that one. */
extern bool events_wait_for_round(void);
extern bool events_wait_for_tick(int64 after, TimestampTz until);

#endif							/* TASKER_EVENT_H */
