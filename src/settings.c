/*
 * settings.c
 *	  Every setting of the extension: the one place that defines them.
 *
 * doc/settings.md is tested against pg_settings, which is filled from here.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "tasker.h"

int			tasker_executors = 2;
int			tasker_batch_budget = 20;
int			tasker_batch_size = 500;
int			tasker_lock_timeout = 10000;
int			tasker_max_crashes = 3;
int			tasker_breaker_failures = 5;
int			tasker_breaker_window = 60;
int			tasker_breaker_open_for = 30;
int			tasker_consumer_timeout = 60;
int			tasker_notify_limit = 100;
int			tasker_subscriber_retention = 7 * 86400;
int			tasker_node = 0;
int			tasker_subscriber_max_attempts = 5;
int			tasker_subscriber_handler_timeout = 30000;
int			tasker_clock_offset = 0;
char	   *tasker_environment = NULL;
bool		tasker_activate_restored = false;
char	   *tasker_correlation = NULL;
bool		tasker_log_registries = true;
int			tasker_identity_strategy = IDENTITY_NONE;
int			tasker_yaml_max_size = 1024 * 1024;
int			tasker_yaml_max_depth = 100;
int			tasker_yaml_max_nodes = 100000;
int			tasker_yaml_max_expansion = 16 * 1024 * 1024;

static const struct config_enum_entry identity_strategies[] = {
	{"none", IDENTITY_NONE, false},
	{"hash", IDENTITY_HASH, false},
	{NULL, 0, false}
};

void
tasker_define_settings(void)
{
	DefineCustomBoolVariable("tasker.activate_restored",
							 "Lets the engine start by itself in a database that was restored or copied.",
							 "Off, it stays stopped there until tasker.activate() is called, so that a copy does not do everything a second time.",
							 &tasker_activate_restored, false,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.batch_budget",
							"Time after which an executor ends its batch and commits.",
							"It is also how long a row that a handler writes may stay locked by steps that run after it.",
							&tasker_batch_budget, 20, 1, 10000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.batch_size",
							"Number of tasks that an executor takes into one batch at the most.",
							NULL,
							&tasker_batch_size, 500, 1, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.breaker_failures",
							"Number of failed requests in a row that open a host's circuit breaker.",
							"0: none is ever opened. HTTP steps that want a host with an open one wait, which is no attempt.",
							&tasker_breaker_failures, 5, 0, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.breaker_open_for",
							"Time that a circuit breaker stays open before one request is let through.",
							"If that fails, it stays open for as long again.",
							&tasker_breaker_open_for, 30, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.breaker_window",
							"Time within which failed requests count together for a circuit breaker.",
							"It begins with the first failure behind a success.",
							&tasker_breaker_window, 60, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.clock_offset",
							"Moves the clock that all due times come from.",
							"For tests of long delays.",
							&tasker_clock_offset, 0, INT_MIN, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.consumer_timeout",
							"Time after which the events that a consumer has fetched and not acknowledged go to another one of its subscriber.",
							"It counts from its last fetch or acknowledgement.",
							&tasker_consumer_timeout, 60, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("tasker.correlation_id",
							   "Correlation id of what this session does to the registries.",
							   "Empty, each transaction has one of its own.",
							   &tasker_correlation, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("tasker.environment",
							   "Block of a definition's environments that tasks are created with.",
							   "A template that was registered for an environment keeps that one.",
							   &tasker_environment, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.executors",
							"Number of executors in each database; 0 stops them.",
							"Each takes a worker of max_worker_processes.",
							&tasker_executors, 2, 0, TASKER_MAX_EXECUTORS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("tasker.identity_strategy",
							 "What makes the idempotency key of a task that is created without one.",
							 "hash: tasker.identity_hash(), so that the same request makes one task within a minute.",
							 &tasker_identity_strategy, IDENTITY_NONE, identity_strategies,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.lock_timeout",
							"Time for which a handler that runs alone may wait for a lock.",
							"In a batch it is a hundred milliseconds; a step that waited longer there is run alone, and that is no attempt.",
							&tasker_lock_timeout, 10000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("tasker.log_registries",
							 "Writes what is done to the registries to the server log.",
							 "One line of JSON each; tasker.registry_log has them as rows in any case.",
							 &tasker_log_registries, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.max_crashes",
							"Number of times that a step may bring the server down before it goes to error.",
							NULL,
							&tasker_max_crashes, 3, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("tasker.node",
								"Number of this server, the upper bits of the ids of its tasks.",
								"0 on a single server; each of several that exchange tasks has its own.",
								&tasker_node, 0, 0, TASKER_MAX_NODE,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.notify_limit",
							"Number of events that are announced one by one in a round.",
							"A round with more is announced by one notification for all of them.",
							&tasker_notify_limit, 100, 0, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.subscriber_retention",
							"Time without a fetch after which what a subscriber has not fetched may be pruned.",
							"tasker.prune_events() spares what others have not fetched yet.",
							&tasker_subscriber_retention, 7 * 86400, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.subscriber_handler_timeout",
							"Time that a subscriber's handler may take for an event.",
							"0: as long as it likes. An event whose handler took longer is tried again.",
							&tasker_subscriber_handler_timeout, 30000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.subscriber_max_attempts",
							"Number of times that a subscriber's handler is given an event.",
							"When it has failed so often, the event goes to tasker.dead_events.",
							&tasker_subscriber_max_attempts, 5, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.yaml_max_depth",
							"Number of levels that lists and mappings of a YAML text may be nested.",
							"Those that an alias brings count where it stands.",
							&tasker_yaml_max_depth, 100, 1, 1000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.yaml_max_expansion",
							"Size of all keys and values of a YAML text, aliases expanded.",
							NULL,
							&tasker_yaml_max_expansion, 16 * 1024 * 1024, 1024, 256 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.yaml_max_nodes",
							"Number of keys and values of a YAML text, aliases expanded.",
							NULL,
							&tasker_yaml_max_nodes, 100000, 100, 10000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("tasker.yaml_max_size",
							"Size of a YAML text.",
							NULL,
							&tasker_yaml_max_size, 1024 * 1024, 1024, 256 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);

	MarkGUCPrefixReserved("tasker");
}
