/*
 * front.c
 *	  Where in a lane the tokens begin that nobody has claimed yet.
 *
 * The index entries of tokens that are gone lie in front of those that are there
 * until the next vacuum, which an old snapshot anywhere in the database holds up.
 * So executors share, for each lane and rank, from where on there can be
 * anything, and read from there.
 *
 * Nothing is overlooked.  Who claims takes the front first and his snapshot then,
 * and moves the front up to where his claim ended.  Who commits tokens makes them
 * visible first and notes them then: if he came before the front was taken, the
 * snapshot has them; if later, they stand in the news, and the front stops at
 * them.  What somebody has passed by because others had it is theirs: when they
 * give it back, by an abort or an operator's end, the whole lane is read again.
 * That is done once in a while in any case, so seldom that it takes a fiftieth of
 * the time at most.
 */
#include "postgres.h"

#include "engine/front.h"

#define WHOLE_US		USECS_PER_SEC	/* at least between two looks at the whole lane */
#define WHOLE_SHARE		50				/* one part in so many of the time */

static void
open_whole(LaneFront *lane)
{
	lane->front.open = true;
	lane->front.parts = 0;
}

void
front_init(LaneFront *lanes)
{
	for (int i = 0; i < FRONT_LANES; i++)
	{
		memset(&lanes[i], 0, sizeof(LaneFront));
		SpinLockInit(&lanes[i].mutex);
		open_whole(&lanes[i]);
	}
}

/* Something may be anywhere. */
void
front_reset(LaneFront *lanes)
{
	for (int i = 0; i < FRONT_LANES; i++)
	{
		SpinLockAcquire(&lanes[i].mutex);
		open_whole(&lanes[i]);
		/* Who has read the front before this has missed too much to write it. */
		lanes[i].front.count += FRONT_NEWS + 1;
		SpinLockRelease(&lanes[i].mutex);
	}
}

/*
 * Sets from where on a rank is to be read; false: there is no room.
 */
bool
front_set(Front *front, int32 rank, TimestampTz due)
{
	int			i = 0;

	while (i < front->parts && front->part[i].rank < rank)
		i++;
	if (i < front->parts && front->part[i].rank == rank)
	{
		front->part[i].due = due;
		return true;
	}
	if (front->parts == FRONT_PARTS)
		return false;
	memmove(&front->part[i + 1], &front->part[i], (front->parts - i) * sizeof(FrontPart));
	front->part[i].rank = rank;
	front->part[i].due = due;
	front->parts++;
	return true;
}

static FrontPart *
find_part(Front *front, int32 rank)
{
	for (int i = 0; i < front->parts; i++)
		if (front->part[i].rank == rank)
			return &front->part[i];
	return NULL;
}

/* Lets the front begin not behind that token. */
static void
lower(LaneFront *lane, int32 rank, TimestampTz due)
{
	Front	   *front = &lane->front;
	FrontPart  *part;

	if (front->open || rank > front->rest)
		return;
	part = find_part(front, rank);
	if (part != NULL)
		part->due = Min(part->due, due);
	else if (!front_set(front, rank, due))
		open_whole(lane);
}

/* A token of this rank, due then, has been committed. */
void
front_note(LaneFront *lane, int32 rank, TimestampTz due)
{
	SpinLockAcquire(&lane->mutex);
	lane->front.count++;
	lane->news[lane->front.count % FRONT_NEWS] = (FrontPart) {rank, due};
	lower(lane, rank, due);
	SpinLockRelease(&lane->mutex);
}

/*
 * Takes the front, before the snapshot that the lane is read with.  True: it is
 * the whole lane.
 */
bool
front_read(LaneFront *lane, Front *front, TimestampTz now)
{
	SpinLockAcquire(&lane->mutex);
	/* Not for ever, should the clock have been set back. */
	if (now >= lane->whole_due || now < lane->whole_due - USECS_PER_DAY)
		open_whole(lane);
	*front = lane->front;
	SpinLockRelease(&lane->mutex);
	return front->open;
}

/*
 * Moves the front to where the claim that began at `before` ended.  Another one
 * may have moved it further meanwhile, and tokens may have come.
 */
void
front_write(LaneFront *lane, const Front *before, const Front *after)
{
	Front	   *front = &lane->front;

	SpinLockAcquire(&lane->mutex);
	if (front->count - before->count <= FRONT_NEWS)
	{
		bool		fits = true;

		for (int i = 0; i < after->parts && fits; i++)
		{
			FrontPart  *part = find_part(front, after->part[i].rank);

			if (part == NULL || part->due < after->part[i].due)
				fits = front_set(front, after->part[i].rank, after->part[i].due);
		}
		if (!after->open)
		{
			front->rest = front->open ? after->rest : Max(front->rest, after->rest);
			front->open = false;
		}
		for (uint32 n = before->count + 1; n != front->count + 1; n++)
		{
			FrontPart	token = lane->news[n % FRONT_NEWS];

			lower(lane, token.rank, token.due);
		}
		if (!fits)
			open_whole(lane);
	}
	SpinLockRelease(&lane->mutex);
}

/* The whole lane has been read, which took that long. */
void
front_was_whole(LaneFront *lane, TimestampTz began, TimestampTz ended)
{
	SpinLockAcquire(&lane->mutex);
	lane->whole_due = ended + Max(WHOLE_US, (ended - began) * WHOLE_SHARE);
	SpinLockRelease(&lane->mutex);
}
