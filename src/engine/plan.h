/*
 * plan.h
 *	  Plans as a backend keeps them: read once, with every handler looked up.
 */
#ifndef TASKER_PLAN_H
#define TASKER_PLAN_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/jsonb.h"

#include "secret/secret.h"
#include "shared_memory.h"
#include "state/limit.h"

typedef enum HandlerKind
{
	HANDLER_MISSING,			/* no such name is registered any more */
	HANDLER_SQL,
	HANDLER_EXTERNAL,
	HANDLER_API
} HandlerKind;

/* A handler as a step finds it. */
typedef struct Handler
{
	HandlerKind kind;
	int32		handler_id;		/* 0 for api */
	bool		own_transaction;
	bool		looked_up;		/* function and role are resolved, or problem says why not */
	bool		plain_sql;		/* LANGUAGE sql: called through SPI, where it is inlined */
	char	   *class_name;	/* or the name of the subscriber */
	char	   *function_name;
	char	   *role_name;
	char	   *search_path;
	char	   *problem;		/* why it can't be called */
	bool		for_events;		/* of a subscriber */
	bool		takes_jsonb;	/* then: jsonb instead of tasker.event */
	Oid			function;
	Oid			role;
	FmgrInfo	flinfo;
	struct _SPI_plan *call;		/* for plain_sql */
	HandlerTiming *timing;
	uint32		average_us;		/* where there is no shared timing */
} Handler;

typedef struct PlanStep
{
	int16		step_no;
	int16		parent_count;
	int16		child_count;
	int16		retry_limit;
	bool		retryable;
	int16	   *parents;
	int16	   *children;
	char	   *name;
	double		base_delay;		/* s */
	double		max_delay;		/* s */
	double		jitter;
	int64		timeout;		/* µs; 0: none */
	int			limit_count;
	StepLimit  *limits;			/* on the steps in progress at once */
	Jsonb	   *config;
	SecretUse  *secrets;		/* what in it is replaced when the step runs; NULL: nothing */
	Handler	   *handler;
	Handler	   *answer;			/* of an api step: makes the result of the answer; NULL: none */
} PlanStep;

typedef struct TaskPlan
{
	int32		plan_id;
	char	   *namespace;
	char	   *name;
	char	   *version;
	bool		stop_on_failure;
	bool		one_at_a_time;	/* concurrent: false */
	int64		timeout;		/* µs; 0: none */
	int			step_count;
	PlanStep   *steps;			/* steps[0] is step number 1 */
} TaskPlan;

#define plan_step(plan, step_no) (&(plan)->steps[(step_no) - 1])

/* Call at the start of a transaction: throws away what a change has made stale. */
extern void plan_cache_refresh(void);
extern TaskPlan *plan_get(int32 plan_id);
extern TupleDesc plan_step_context(void);
extern TupleDesc plan_event(void);

/* The handler of a subscriber; what is given was read from tasker.subscriber. */
extern Handler *plan_subscriber_handler(int32 subscriber_id, const char *name,
										const char *signature, const char *role,
										const char *search_path);

/* The handler with its function and role looked up, or with problem set. */
extern void handler_look_up(Handler *handler);

/* Lane in which a ready step's token waits. */
extern int32 handler_lane(const Handler *handler);

/* Run times, in µs. */
extern uint32 handler_average_us(const Handler *handler);
extern void handler_timed(Handler *handler, uint64 us);

#define HANDLER_SLOW_US		1000	/* from here on a handler is run alone */
#define handler_is_fast(h) \
	(handler_average_us(h) > 0 && handler_average_us(h) < HANDLER_SLOW_US)

#endif							/* TASKER_PLAN_H */
