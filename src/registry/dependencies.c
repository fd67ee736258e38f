/*
 * dependencies.c
 *	  A function that a handler is registered with can't be dropped, renamed or
 *	  moved from under it.
 *
 * A row of a table can't be an object in pg_depend: a DROP that comes to such
 * an entry fails for a reason nobody understands.  So this looks when it
 * happens.  It costs a lookup in the catalogue's caches for a function of
 * another kind, and nothing where the database does not have the extension.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "registry/dependencies.h"

static object_access_hook_type previous_hook = NULL;

/*
 * Whether this very command drops the extension, and the functions with it.
 */
static bool
extension_is_going(Oid extension)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	return LockHeldByMe(&tag, AccessExclusiveLock);
}

/*
 * Whether there are handlers to look for.  A session that does not check
 * function bodies is restoring a dump, which brings the function back.  An
 * older version of the extension, which is not updated yet, can't be asked.
 */
static bool
handlers_count_here(void)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Oid			schema = get_namespace_oid("tasker", true);
	Oid			extension;

	if (!OidIsValid(schema) || !check_function_bodies ||
		!SearchSysCacheExists3(PROCNAMEARGSNSP, CStringGetDatum("_function_users"),
							   PointerGetDatum(buildoidvector(types, 2)),
							   ObjectIdGetDatum(schema)))
		return false;
	extension = get_extension_oid("tasker", true);
	return OidIsValid(extension) && !extension_is_going(extension);
}

/*
 * Whether the function takes what a handler takes.
 */
static bool
is_like_a_handler(Form_pg_proc proc)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum("step_context"),
									   ObjectIdGetDatum(get_namespace_oid("tasker", true)));

	return OidIsValid(type) && proc->pronargs == 1 && proc->proargtypes.values[0] == type;
}

/* A column of the only row, or NULL. */
static char *
column(int number, MemoryContext context)
{
	char	   *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number);

	return text ? MemoryContextStrdup(context, text) : NULL;
}

/*
 * Raises an error where a handler needs the function, or, name being NULL, a
 * function of the schema.  what: the object and what was to be done to it.
 */
static void
refuse_if_needed(const char *schema, const char *name, const char *what)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];
	char		nulls[2] = {' ', name ? ' ' : 'n'};
	Oid			user;
	int			context;
	char	   *users;
	char	   *call;

	values[0] = CStringGetTextDatum(schema);
	values[1] = name ? CStringGetTextDatum(name) : (Datum) 0;

	/*
	 * Whoever drops a function need not be able to read the engine's tables.
	 * The function asked sets its own search_path.  Read only, so that what the
	 * command has half done to the catalogue is not made visible to it.
	 */
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	if (SPI_execute_with_args("SELECT u.users, u.call FROM tasker._function_users($1, $2) AS u",
							  2, types, values, nulls, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "the handlers of a function could not be read");
	users = column(1, caller);
	call = column(2, caller);
	SPI_finish();
	PopActiveSnapshot();
	SetUserIdAndSecContext(user, context);

	if (users != NULL)
		ereport(ERROR,
				errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				errmsg("cannot %s because a handler is registered with it", what),
				errdetail("%s", users),
				errhint("Remove the handler first: SELECT %s;", call));
}

static void
function_drops(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;

	if (!HeapTupleIsValid(tuple))
		return;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (is_like_a_handler(proc))
		refuse_if_needed(get_namespace_name(proc->pronamespace), NameStr(proc->proname),
						 psprintf("drop function %s(tasker.step_context)",
								  quote_qualified_identifier(get_namespace_name(proc->pronamespace),
															 NameStr(proc->proname))));
	ReleaseSysCache(tuple);
}

/*
 * The row as the command has just made it, which the caches do not show yet.
 */
static HeapTuple
new_row(Oid catalogue, Oid index, AttrNumber key, Oid object)
{
	Relation	relation = table_open(catalogue, AccessShareLock);
	ScanKeyData skey;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&skey, key, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object));
	scan = systable_beginscan(relation, index, true, SnapshotSelf, 1, &skey);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return tuple;
}

static void
function_alters(Oid function)
{
	HeapTuple	before = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	HeapTuple	after;
	Form_pg_proc old;
	Form_pg_proc new;

	if (!HeapTupleIsValid(before))
		return;
	old = (Form_pg_proc) GETSTRUCT(before);
	if (is_like_a_handler(old))
	{
		after = new_row(ProcedureRelationId, ProcedureOidIndexId, Anum_pg_proc_oid, function);
		new = HeapTupleIsValid(after) ? (Form_pg_proc) GETSTRUCT(after) : old;
		if (new->pronamespace != old->pronamespace ||
			strcmp(NameStr(new->proname), NameStr(old->proname)) != 0)
			refuse_if_needed(get_namespace_name(old->pronamespace), NameStr(old->proname),
							 psprintf("rename or move function %s(tasker.step_context)",
									  quote_qualified_identifier(get_namespace_name(old->pronamespace),
																 NameStr(old->proname))));
	}
	ReleaseSysCache(before);
}

static void
schema_alters(Oid schema)
{
	char	   *old = get_namespace_name(schema);
	HeapTuple	after = new_row(NamespaceRelationId, NamespaceOidIndexId, Anum_pg_namespace_oid,
								schema);

	if (old != NULL && HeapTupleIsValid(after) &&
		strcmp(old, NameStr(((Form_pg_namespace) GETSTRUCT(after))->nspname)) != 0)
		refuse_if_needed(old, NULL, psprintf("rename schema %s", quote_identifier(old)));
}

static void
look_at_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (previous_hook)
		previous_hook(access, class_id, object_id, sub_id, arg);

	if (access == OAT_DROP && class_id == ProcedureRelationId)
	{
		if (handlers_count_here())
			function_drops(object_id);
	}
	else if (access == OAT_POST_ALTER && class_id == ProcedureRelationId)
	{
		if (handlers_count_here())
			function_alters(object_id);
	}
	else if (access == OAT_POST_ALTER && class_id == NamespaceRelationId)
	{
		if (handlers_count_here())
			schema_alters(object_id);
	}
}

/*
 * Called once, by _PG_init().
 */
void
tasker_dependencies_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = look_at_access;
}
