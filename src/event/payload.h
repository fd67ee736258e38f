/*
 * payload.h
 *	  The payload of an event, put together pair by pair.
 */
#ifndef TASKER_PAYLOAD_H
#define TASKER_PAYLOAD_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef struct Payload
{
	JsonbPair  *pairs;			/* in the order in which they were put */
	int			count;
	int			space;
	bool		is_foreign;		/* has keys that are no constants of the program */
} Payload;

/*
 * In which order the pairs of payloads stand whose keys are these.  There are
 * few such lists of keys and many payloads: each is sorted once.
 */
typedef struct PayloadShapes
{
	MemoryContext context;
	List	   *shapes;
} PayloadShapes;

/* Of one key, what is put last stays; a key that is put must be a constant. */
extern void payload_put(Payload *payload, const char *key, Oid type, Datum value);
extern void payload_put_object(Payload *payload, Jsonb *object);
extern Jsonb *payload_end(Payload *payload, PayloadShapes *shapes);

#endif							/* TASKER_PAYLOAD_H */
