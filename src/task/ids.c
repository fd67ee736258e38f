/*
 * ids.c
 *	  Task ids: the one place that makes them, and their order.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "utils/lsyscache.h"

#include "tasker.h"

int
task_id_compare(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

int64
task_id_next(void)
{
	Oid			sequence = get_relname_relid("task_id_seq", get_namespace_oid("tasker", false));
	int64		number = nextval_internal(sequence, false);

	if (number >> TASKER_NODE_BITS != 0)
		ereport(ERROR,
				errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				errmsg("no task ids are left"),
				errdetail("A server can make %lld of them.", 1LL << TASKER_NODE_BITS));
	return (int64) tasker_node << TASKER_NODE_BITS | number;
}
