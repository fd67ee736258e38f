/*
 * commands.c
 *	  Commands that the engine's workers must make way for, or hear of.
 *
 * DROP EXTENSION and ALTER EXTENSION UPDATE would wait for a running handler or
 * deadlock with it, DROP DATABASE and its like fail while anybody is connected.
 * So before such a command this database's workers are held: told to end, and
 * kept from starting.  The hold ends with the transaction, however it ends, and
 * the launcher looks again.
 *
 * Only who may run the command may stop the workers by it, or make them wait:
 * DROP EXTENSION by anybody else is refused before it takes its lock.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "engine/handler.h"
#include "engine/processes.h"
#include "shared_memory.h"

PG_FUNCTION_INFO_V1(tasker_make_way);

#define WAIT_FOR_WORKERS_MS	1000

/* A transaction holds its own database, and one that it names. */
#define MAX_HELD	4

static ProcessUtility_hook_type next_ProcessUtility = NULL;

static Oid	held[MAX_HELD];
static int	held_count = 0;
static bool dropped;			/* this transaction is about to commit without the extension */

/*
 * Lets go of everything that the transaction held.  What became of the
 * extension here is looked up while that can still be done, which saves the
 * launcher from starting a worker to find out.
 */
static void
release_at_xact_end(XactEvent event, void *arg)
{
	if (held_count == 0)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		dropped = !OidIsValid(get_extension_oid("tasker", true));
		return;
	}
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < held_count; i++)
		database_release(held[i],
						 dropped && event == XACT_EVENT_COMMIT && held[i] == MyDatabaseId);
	LWLockRelease(tasker_shared->lock);
	held_count = 0;
	dropped = false;
	launcher_wake();
}

/* Keeps workers from starting in a database until the transaction ends. */
static bool
hold_database(Oid database)
{
	static bool registered = false;
	bool		done;

	for (int i = 0; i < held_count; i++)
	{
		if (held[i] == database)
			return true;
	}
	if (held_count == MAX_HELD)
		return false;
	if (!registered)
	{
		RegisterXactCallback(release_at_xact_end, NULL);
		registered = true;
	}
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	done = database_hold(database);
	if (done)
		held[held_count++] = database;
	LWLockRelease(tasker_shared->lock);
	return done;
}

/* Tells one worker to end, once; true: it is still there. */
static bool
stop_worker(WorkerSlot *slot)
{
	if (slot->pid == 0 || slot->pid == MyProcPid)
		return false;
	if (!slot->leaving)
	{
		slot->leaving = true;
		kill(slot->pid, SIGTERM);
	}
	return true;
}

/* Tells the workers of a database to end; true: some are still there. */
static bool
stop_database(Oid oid)
{
	TaskerDatabase *database;
	bool		alive = false;

	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	database = database_find(oid);
	if (database != NULL)
	{
		alive = stop_worker(&database->notifier);
		alive |= stop_worker(&database->deliverer);
		for (int i = 0; i < TASKER_MAX_EXECUTORS; i++)
			alive |= stop_worker(&database->executor[i]);
	}
	LWLockRelease(tasker_shared->lock);
	return alive;
}

/*
 * Stops the workers of a database for the rest of the transaction.  One that
 * does not end within a second is left to the command, which waits or fails as
 * it would for any session.
 */
static void
make_way(Oid database)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WAIT_FOR_WORKERS_MS);

	if (!OidIsValid(database) || !hold_database(database))
		return;
	ConditionVariablePrepareToSleep(&tasker_shared->worker_gone);
	while (stop_database(database))
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0 ||
			ConditionVariableTimedSleep(&tasker_shared->worker_gone, left,
										tasker_wait_event(WAIT_WORKERS_GONE)))
			break;
	}
	ConditionVariableCancelSleep();
}

/*
 * tasker._make_way()
 *
 * For changes to tables that running workers would wait for, or deadlock with.
 */
Datum
tasker_make_way(PG_FUNCTION_ARGS)
{
	if (tasker_shared != NULL)
		make_way(MyDatabaseId);
	LockDatabaseObject(ExtensionRelationId, get_extension_oid("tasker", false), 0,
					   AccessExclusiveLock);
	PG_RETURN_VOID();
}

static bool
owns_database(Oid database)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

static bool
owns_extension(Oid extension)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ExtensionRelationId, extension, GetUserId());
#else
	return pg_extension_ownercheck(extension, GetUserId());
#endif
}

static bool
owns_schema(Oid schema)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(NamespaceRelationId, schema, GetUserId());
#else
	return pg_namespace_ownercheck(schema, GetUserId());
#endif
}

/* Whether the user may copy a database: CREATE DATABASE's own rule. */
static bool
may_copy_database(Oid database)
{
	HeapTuple	tuple;
	bool		is_template = false;

	if (owns_database(database))
		return true;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (HeapTupleIsValid(tuple))
	{
		is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return is_template;
}

/* The value of an option, or NULL. */
static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/* Whether one of the names in a DROP is this one. */
static bool
names_include(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		Node	   *node = lfirst(cell);

		if (IsA(node, String) && strcmp(strVal(node), name) == 0)
			return true;
	}
	return false;
}

/* DROP EXTENSION, and DROP SCHEMA, whose CASCADE drops the extension. */
static void
before_drop(DropStmt *statement)
{
	Oid			extension;

	if (statement->removeType != OBJECT_EXTENSION && statement->removeType != OBJECT_SCHEMA)
		return;
	if (!names_include(statement->objects, "tasker"))
		return;
	extension = get_extension_oid("tasker", true);
	if (!OidIsValid(extension))
		return;
	if (statement->removeType == OBJECT_EXTENSION)
	{
		if (!owns_extension(extension))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_EXTENSION, "tasker");
		make_way(MyDatabaseId);
	}
	else if (statement->behavior == DROP_CASCADE && owns_schema(get_namespace_oid("tasker", false)))
		make_way(MyDatabaseId);
}

/*
 * ALTER EXTENSION UPDATE.  It takes no lock on the extension itself; we do, so
 * that a worker that was slow to end can't begin its next transaction.
 */
static void
before_update_extension(AlterExtensionStmt *statement)
{
	Oid			extension;

	if (strcmp(statement->extname, "tasker") != 0)
		return;
	extension = get_extension_oid("tasker", true);
	if (!OidIsValid(extension) || !owns_extension(extension))
		return;
	make_way(MyDatabaseId);
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessExclusiveLock);
}

/* A command on a database that can't be run while somebody is connected. */
static void
before_database_command(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) && owns_database(database))
		make_way(database);
}

static void
before_create_database(CreatedbStmt *statement)
{
	DefElem    *template = find_option(statement->options, "template");
	Oid			database = get_database_oid(template != NULL && template->arg != NULL ?
											defGetString(template) : "template1", true);

	if (OidIsValid(database) && may_copy_database(database))
		make_way(database);
}

static void
before_command(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropStmt:
			before_drop((DropStmt *) statement);
			break;
		case T_AlterExtensionStmt:
			before_update_extension((AlterExtensionStmt *) statement);
			break;
		case T_DropdbStmt:
			before_database_command(((DropdbStmt *) statement)->dbname);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				before_database_command(((RenameStmt *) statement)->subname);
			break;
		case T_AlterDatabaseStmt:
			if (find_option(((AlterDatabaseStmt *) statement)->options, "tablespace"))
				before_database_command(((AlterDatabaseStmt *) statement)->dbname);
			break;
		case T_CreatedbStmt:
			before_create_database((CreatedbStmt *) statement);
			break;
		case T_ConstraintsSetStmt:
			handler_note_constraints();
			break;
		default:
			break;
	}
}

/*
 * Another session prepared the transaction; what it noted is lost.  Its rows
 * are visible now, so everybody looks.
 */
static void
after_prepared_ends(void)
{
	if (tasker_my_database() == NULL && OidIsValid(get_extension_oid("tasker", true)))
		tasker_note_look(MyDatabaseId);
	wake_database(MyDatabaseId);
}

/* What is to be done after a command that succeeded. */
typedef struct Sequel
{
	bool		ends_prepared;
	char		database[NAMEDATALEN];	/* the launcher is to look at it; empty: none */
} Sequel;

/* Decided before the command, which may free its own statement. */
static void
plan_sequel(Node *statement, Sequel *sequel)
{
	const char *database = "";

	/* A rollback lets go what the transaction kept from the executors. */
	sequel->ends_prepared = IsA(statement, TransactionStmt) &&
		(((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((TransactionStmt *) statement)->kind == TRANS_STMT_ROLLBACK_PREPARED);
	if (IsA(statement, CreatedbStmt))
		database = ((CreatedbStmt *) statement)->dbname;
	else if (IsA(statement, AlterDatabaseStmt) &&
			 (find_option(((AlterDatabaseStmt *) statement)->options, "allow_connections") ||
			  find_option(((AlterDatabaseStmt *) statement)->options, "is_template")))
		database = ((AlterDatabaseStmt *) statement)->dbname;
	strlcpy(sequel->database, database, sizeof(sequel->database));
}

static void
after_command(const Sequel *sequel)
{
	if (sequel->ends_prepared)
		after_prepared_ends();
	if (sequel->database[0] != '\0')
	{
		/* The command's own rows are to be seen. */
		CommandCounterIncrement();
		tasker_note_look(get_database_oid(sequel->database, true));
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *destination, QueryCompletion *completion)
{
	Sequel		sequel;

	plan_sequel(pstmt->utilityStmt, &sequel);
	before_command(pstmt->utilityStmt);
	if (next_ProcessUtility)
		next_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
							destination, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								destination, completion);
	after_command(&sequel);
}

void
tasker_commands_init(void)
{
	next_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
