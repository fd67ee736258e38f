/*
 * access.c
 *	  What roles may do, as a backend keeps it.
 *
 * The grants are few and asked for often, in policies once a row.  So a backend
 * reads all of them at once, works out what a role has by its own grants and by
 * those of the roles whose privileges it has, and keeps that, as one bit for
 * each permission in each namespace, until a grant or a membership changes.
 * While access is not enforced the answer is one look at a flag.
 *
 * The tables are read as a catalogue is, by a scan without a check of
 * privileges: nobody but the owner may read the grants of others.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "access/access.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_caller_may);
PG_FUNCTION_INFO_V1(tasker_caller_namespaces);
PG_FUNCTION_INFO_V1(tasker_require);
PG_FUNCTION_INFO_V1(tasker_role_may);
PG_FUNCTION_INFO_V1(tasker_is_administrator);
PG_FUNCTION_INFO_V1(tasker_is_enforced);
PG_FUNCTION_INFO_V1(tasker_access_changed);

/* Columns of tasker.access_grant and tasker.access_mode that are read here. */
#define GRANT_ROLE			1
#define GRANT_NAMESPACE		2
#define GRANT_PERMISSION	3
#define MODE_ENFORCED		1

#define EVERYBODY			"public"

typedef struct Grant
{
	Oid			role;			/* InvalidOid: everybody */
	uint64		permission;		/* one bit */
	char	   *namespace;
} Grant;

/* What a role may do in one namespace, or in all. */
typedef struct Right
{
	char	   *namespace;
	uint64		permissions;
} Right;

typedef struct RoleRights
{
	Oid			role;
	bool		is_administrator;
	uint64		anywhere;		/* in one namespace at least */
	int			count;
	Right	   *rights;
} RoleRights;

static MemoryContext cache_context = NULL;
static bool stale = false;
static Oid	grant_table = InvalidOid;
static Oid	mode_table = InvalidOid;
static Oid	owner = InvalidOid;
static bool enforced = false;
static uint64 generation = 0;	/* of what is kept */
static List *permissions = NIL; /* names; the place is the bit */
static List *grants = NIL;
static HTAB *roles = NULL;

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == grant_table || relid == mode_table || relid == InvalidOid)
		stale = true;
}

static void
catalogue_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	stale = true;
}

/*
 * The bit of a permission; 0 for one that nobody has.
 */
static uint64
permission_bit(const char *name)
{
	ListCell   *cell;

	foreach(cell, permissions)
		if (strcmp(lfirst(cell), name) == 0)
			return UINT64CONST(1) << foreach_current_index(cell);
	return 0;
}

static uint64
permission_add(char *name)
{
	uint64		bit = permission_bit(name);

	if (bit != 0)
		return bit;
	if (list_length(permissions) == 64)
		elog(ERROR, "there are more than 64 permissions");
	permissions = lappend(permissions, name);
	return permission_bit(name);
}

static char *
column_text(HeapTuple tuple, int column, TupleDesc desc)
{
	bool		isnull;

	return TextDatumGetCString(heap_getattr(tuple, column, desc, &isnull));
}

static void
read_grants(void)
{
	Relation	relation = table_open(grant_table, AccessShareLock);
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	owner = relation->rd_rel->relowner;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char	   *name = column_text(tuple, GRANT_ROLE, RelationGetDescr(relation));
		Oid			role = InvalidOid;
		Grant	   *grant;

		if (strcmp(name, EVERYBODY) != 0)
		{
			role = get_role_oid(name, true);
			if (!OidIsValid(role))
				continue;
		}
		grant = palloc(sizeof(Grant));
		grant->role = role;
		grant->namespace = column_text(tuple, GRANT_NAMESPACE, RelationGetDescr(relation));
		grant->permission = permission_add(column_text(tuple, GRANT_PERMISSION,
													   RelationGetDescr(relation)));
		grants = lappend(grants, grant);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
}

static void
read_mode(void)
{
	Relation	relation = table_open(mode_table, AccessShareLock);
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	bool		isnull;

	enforced = false;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		enforced |= DatumGetBool(heap_getattr(tuple, MODE_ENFORCED,
											  RelationGetDescr(relation), &isnull));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
}

/*
 * Reads all of it, unless what is kept is still right.  An error on the way
 * leaves it stale.
 */
static void
refresh(void)
{
	static bool registered = false;
	HASHCTL		ctl = {0};
	MemoryContext before;
	Oid			schema;

	if (cache_context != NULL && !stale)
		return;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, catalogue_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, catalogue_changed, (Datum) 0);
		registered = true;
	}
	stale = true;
	generation++;
	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(CacheMemoryContext, "tasker access",
											  ALLOCSET_SMALL_SIZES);
	permissions = NIL;
	grants = NIL;
	roles = NULL;
	MemoryContextReset(cache_context);

	schema = get_namespace_oid("tasker", false);
	grant_table = get_relname_relid("access_grant", schema);
	mode_table = get_relname_relid("access_mode", schema);
	before = MemoryContextSwitchTo(cache_context);
	/* A change that comes while it is read makes it stale again. */
	stale = false;
	PG_TRY();
	{
		read_mode();
		read_grants();
	}
	PG_CATCH();
	{
		stale = true;
		PG_RE_THROW();
	}
	PG_END_TRY();
	ctl.hcxt = cache_context;
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(RoleRights);
	roles = hash_create("tasker access", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	MemoryContextSwitchTo(before);
}

static void
add_right(RoleRights *of, Grant *grant)
{
	int			i = 0;

	of->anywhere |= grant->permission;
	while (i < of->count && strcmp(of->rights[i].namespace, grant->namespace) != 0)
		i++;
	if (i == of->count)
	{
		of->rights[i].namespace = grant->namespace;
		of->rights[i].permissions = 0;
		of->count++;
	}
	of->rights[i].permissions |= grant->permission;
}

/*
 * What a role may do, worked out at its first question.
 */
static RoleRights *
rights_of(Oid role)
{
	RoleRights *found = hash_search(roles, &role, HASH_FIND, NULL);
	RoleRights	made = {.role = role};
	ListCell   *cell;

	if (found != NULL)
		return found;
	made.is_administrator = has_privs_of_role(role, owner);
	made.rights = MemoryContextAlloc(cache_context,
									 Max(list_length(grants), 1) * sizeof(Right));
	foreach(cell, grants)
	{
		Grant	   *grant = lfirst(cell);

		if (!OidIsValid(grant->role) || has_privs_of_role(role, grant->role))
			add_right(&made, grant);
	}
	found = hash_search(roles, &role, HASH_ENTER, NULL);
	*found = made;
	return found;
}

static bool
rights_include(RoleRights *of, uint64 any_of, const char *namespace)
{
	if (of->is_administrator)
		return true;
	if ((of->anywhere & any_of) == 0)
		return false;
	if (namespace == NULL)
		return true;
	for (int i = 0; i < of->count; i++)
		if ((of->rights[i].permissions & any_of) != 0 &&
			(strcmp(of->rights[i].namespace, EVERY_NAMESPACE) == 0 ||
			 strcmp(of->rights[i].namespace, namespace) == 0))
			return true;
	return false;
}

bool
access_is_enforced(void)
{
	refresh();
	return enforced;
}

bool
access_role_may(Oid role, const char *permission, const char *namespace)
{
	refresh();
	if (!enforced)
		return true;
	return rights_include(rights_of(role), permission_bit(permission), namespace);
}

uint64
access_generation(void)
{
	refresh();
	return generation;
}

uint64
access_permission_bit(const char *permission)
{
	return permission_bit(permission);
}

bool
access_role_has_any(Oid role, uint64 permission_bits, const char *namespace)
{
	return rights_include(rights_of(role), permission_bits, namespace);
}

/*
 * tasker._is_enforced()
 */
Datum
tasker_is_enforced(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(access_is_enforced());
}

/*
 * tasker._is_administrator()
 */
Datum
tasker_is_administrator(PG_FUNCTION_ARGS)
{
	refresh();
	PG_RETURN_BOOL(rights_of(access_caller())->is_administrator);
}

/*
 * tasker._caller_may(permission text, namespace text)
 */
Datum
tasker_caller_may(PG_FUNCTION_ARGS)
{
	if (!access_is_enforced())
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(access_role_may(access_caller(), text_to_cstring(PG_GETARG_TEXT_PP(0)),
								   PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

/*
 * tasker._caller_namespaces(permission text)
 */
Datum
tasker_caller_namespaces(PG_FUNCTION_ARGS)
{
	char	   *permission = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ArrayBuildState *state = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	RoleRights *rights;

	if (!access_is_enforced() ||
		access_role_may(access_caller(), permission, EVERY_NAMESPACE))
		PG_RETURN_NULL();
	rights = rights_of(access_caller());
	for (int i = 0; i < rights->count; i++)
		if ((rights->rights[i].permissions & permission_bit(permission)) != 0)
			state = accumArrayResult(state, CStringGetTextDatum(rights->rights[i].namespace),
									 false, TEXTOID, CurrentMemoryContext);
	PG_RETURN_DATUM(makeArrayResult(state, CurrentMemoryContext));
}

/*
 * tasker._role_may(role text, permission text, namespace text)
 */
Datum
tasker_role_may(PG_FUNCTION_ARGS)
{
	Oid			role;

	if (!access_is_enforced())
		PG_RETURN_BOOL(true);
	role = get_role_oid(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	PG_RETURN_BOOL(OidIsValid(role) &&
				   access_role_may(role, text_to_cstring(PG_GETARG_TEXT_PP(1)),
								   text_to_cstring(PG_GETARG_TEXT_PP(2))));
}

/*
 * Where: as a part of the message.
 */
static const char *
place_of(const char *namespace)
{
	if (namespace == NULL)
		return "in some namespace";
	if (strcmp(namespace, EVERY_NAMESPACE) == 0)
		return "in all namespaces";
	return psprintf("in namespace \"%s\"", namespace);
}

void
access_refuse(const char *permission, const char *namespace)
{
	const char *role = GetUserNameFromId(access_caller(), true);

	if (role == NULL)
		role = "?";
	ereport(ERROR,
			errcode(ERRCODE_TASKER_NOT_ALLOWED),
			errmsg("permission %s is needed %s", permission, place_of(namespace)),
			errdetail("Role \"%s\" was not granted it.", role),
			errhint("Have an administrator SELECT tasker.grant(%s, '{%s}', %s);",
					quote_literal_cstr(role), permission,
					quote_literal_cstr(namespace == NULL ? EVERY_NAMESPACE : namespace)));
	pg_unreachable();
}

void
access_require(const char *permission, const char *namespace)
{
	if (access_is_enforced() && !access_role_may(access_caller(), permission, namespace))
		access_refuse(permission, namespace);
}

/*
 * tasker._require(permission text, namespace text)
 */
Datum
tasker_require(PG_FUNCTION_ARGS)
{
	if (!access_is_enforced())
		PG_RETURN_VOID();
	if (PG_ARGISNULL(0))
		elog(ERROR, "a permission is NULL");
	access_require(text_to_cstring(PG_GETARG_TEXT_PP(0)),
				   PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/*
 * tasker._access_changed()
 */
Datum
tasker_access_changed(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("access_grant",
													 get_namespace_oid("tasker", false)));
	PG_RETURN_VOID();
}
