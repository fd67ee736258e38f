/*
 * tasker.h
 *	  What every room may use: error codes, settings, ids.
 *
 * Include it after postgres.h.
 */
#ifndef TASKER_H
#define TASKER_H

#include "utils/elog.h"
#include "utils/timestamp.h"

/* Errors of class TK; doc/errors.md says the same to users. */
#define ERRCODE_TASKER_PERMANENT		MAKE_SQLSTATE('T', 'K', '0', '0', '1')
#define ERRCODE_TASKER_RETRYABLE		MAKE_SQLSTATE('T', 'K', '0', '0', '2')
#define ERRCODE_TASKER_LEASE_LOST		MAKE_SQLSTATE('T', 'K', '0', '0', '3')
#define ERRCODE_TASKER_ILLEGAL_MOVE		MAKE_SQLSTATE('T', 'K', '0', '0', '4')
#define ERRCODE_TASKER_DEFINITION		MAKE_SQLSTATE('T', 'K', '0', '0', '5')
#define ERRCODE_TASKER_CONTEXT			MAKE_SQLSTATE('T', 'K', '0', '0', '6')
#define ERRCODE_TASKER_NOT_FOUND		MAKE_SQLSTATE('T', 'K', '0', '0', '7')
#define ERRCODE_TASKER_EXISTS			MAKE_SQLSTATE('T', 'K', '0', '0', '8')
#define ERRCODE_TASKER_NOT_ALLOWED		MAKE_SQLSTATE('T', 'K', '0', '0', '9')

/* step_id = task_id << TASKER_STEP_BITS | step_no */
#define TASKER_STEP_BITS	14
#define TASKER_MAX_STEPS	((1 << TASKER_STEP_BITS) - 1)

/* Ids of the log and of events: (transaction + base) << LOG_ID_BITS | number in it */
#define LOG_ID_BITS		20
#define TASKER_NODE_BITS	40
#define TASKER_MAX_NODE		511

/* Lanes of tasker.queue; COMMENT ON COLUMN tasker.queue.lane explains them. */
#define LANE_LIMITED(limit_id)	(-1000 - (limit_id))
#define LANE_NOT_DUE		(-1)
#define LANE_BATCH			0
#define LANE_SLOW			1
#define LANE_ALONE			2
#define LANE_API			3
#define LANE_EXTERNAL_MIN	100

/* Settings: settings.c defines each, once. */
#define TASKER_MAX_EXECUTORS	32

typedef enum IdentityStrategy
{
	IDENTITY_NONE,
	IDENTITY_HASH
} IdentityStrategy;

extern int	tasker_executors;
extern int	tasker_batch_budget;	/* ms */
extern int	tasker_batch_size;		/* tasks */
extern int	tasker_lock_timeout;	/* ms */
extern int	tasker_max_crashes;
extern int	tasker_breaker_failures;	/* requests; 0: off */
extern int	tasker_breaker_window;	/* s */
extern int	tasker_breaker_open_for;	/* s */
extern int	tasker_consumer_timeout;	/* s */
extern int	tasker_notify_limit;	/* events a round */
extern int	tasker_subscriber_retention;	/* s */
extern int	tasker_node;
extern int	tasker_subscriber_max_attempts;
extern int	tasker_subscriber_handler_timeout;	/* ms; 0: none */
extern int	tasker_clock_offset;	/* s */
extern char *tasker_environment;
extern bool tasker_activate_restored;
extern char *tasker_correlation;	/* tasker.correlation_id */
extern bool tasker_log_registries;
extern int	tasker_identity_strategy;	/* IdentityStrategy */
extern int	tasker_yaml_max_size;	/* bytes */
extern int	tasker_yaml_max_depth;	/* levels */
extern int	tasker_yaml_max_nodes;	/* keys and values */
extern int	tasker_yaml_max_expansion;	/* bytes */

extern void tasker_define_settings(void);

/* A new id of a task; and for sorting and searching them. */
extern int64 task_id_next(void);
extern int	task_id_compare(const void *a, const void *b);

/* The engine's time: clock_timestamp() moved by tasker.clock_offset. */
extern TimestampTz tasker_now(void);

#endif							/* TASKER_H */
