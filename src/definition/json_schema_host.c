/*
 * json_schema_host.c
 *	  JSON Schema: what its core needs of the server.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "regex/regex.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "definition/json_schema.h"
#include "definition/json_schema_value.h"

#define REGEX_FLAGS		(REG_ADVANCED | REG_NOSUB)
#define FEW_CHARACTERS	256		/* so many are decoded on the stack */

StaticAssertDecl(BINARY_COUNT_MASK == JB_CMASK && BINARY_IS_SCALAR == JB_FSCALAR &&
				 BINARY_IS_OBJECT == JB_FOBJECT && BINARY_IS_ARRAY == JB_FARRAY,
				 "jsonb's containers are not what json_schema_value.h says");
StaticAssertDecl(ENTRY_SIZE_MASK == JENTRY_OFFLENMASK && ENTRY_TYPE_MASK == JENTRY_TYPEMASK &&
				 ENTRY_HAS_OFFSET == JENTRY_HAS_OFF && ENTRY_STRING == JENTRY_ISSTRING &&
				 ENTRY_NUMBER == JENTRY_ISNUMERIC && ENTRY_FALSE == JENTRY_ISBOOL_FALSE &&
				 ENTRY_TRUE == JENTRY_ISBOOL_TRUE && ENTRY_NULL == JENTRY_ISNULL &&
				 ENTRY_CONTAINER == JENTRY_ISCONTAINER,
				 "jsonb's entries are not what json_schema_value.h says");
StaticAssertDecl(offsetof(Jsonb, root) == VARHDRSZ,
				 "a jsonb is not its root behind the length");

struct HostRegex
{
	regex_t		regex;
	MemoryContextCallback on_delete;
};

void *
host_alloc(void *arena, size_t size)
{
	return MemoryContextAllocHuge((MemoryContext) arena, size);
}

void
host_pause(void)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
}

size_t
host_characters(const char *text, size_t length)
{
	return pg_mbstrlen_with_len(text, (int) length);
}

size_t
host_clip(const char *text, size_t length, size_t limit)
{
	return pg_mbcliplen(text, (int) length, (int) limit);
}

/*
 * What is committed by now counts, whatever the caller's snapshot: what is
 * compiled is kept.  In a parallel query there is no newer snapshot than the
 * leader's; then it is not kept (json_schema.c).
 */
bool
host_fetch_schema(void *arena, const char *uri, JsonValue *schema)
{
	Oid			namespace = get_namespace_oid("tasker", true);
	Oid			table_id = OidIsValid(namespace) ? get_relname_relid("stored_schema", namespace) :
		InvalidOid;
	Oid			index_id = OidIsValid(namespace) ? get_relname_relid("stored_schema_pkey", namespace) :
		InvalidOid;
	Relation	table;
	Snapshot	snapshot;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(table_id) || !OidIsValid(index_id))
		return false;
	table = table_open(table_id, AccessShareLock);
	snapshot = RegisterSnapshot(IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot());
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(uri));
	key.sk_collation = C_COLLATION_OID;
	scan = systable_beginscan(table, index_id, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, 2, RelationGetDescr(table), &isnull);
		MemoryContext before = MemoryContextSwitchTo((MemoryContext) arena);
		Jsonb	   *copy = (Jsonb *) PG_DETOAST_DATUM_COPY(value);

		MemoryContextSwitchTo(before);
		root_value(schema, VARDATA(copy), VARSIZE(copy) - VARHDRSZ);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(table, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/*
 * Regular expressions
 */

static void
free_regex(void *arg)
{
	pg_regfree((regex_t *) arg);
}

/* Before version 16 the server's own part of it is in no memory context. */
HostRegex *
host_regex_compile(void *arena, const char *pattern, size_t length, const char **reason)
{
	HostRegex  *result = MemoryContextAllocZero((MemoryContext) arena, sizeof(HostRegex));
	pg_wchar   *wide = palloc((length + 1) * sizeof(pg_wchar));
	int			wide_length = pg_mb2wchar_with_len(pattern, wide, (int) length);
	MemoryContext before = MemoryContextSwitchTo((MemoryContext) arena);
	int			outcome = pg_regcomp(&result->regex, wide, wide_length, REGEX_FLAGS,
									 C_COLLATION_OID);

	MemoryContextSwitchTo(before);
	pfree(wide);
	if (outcome != REG_OKAY)
	{
		char		text[100];

		CHECK_FOR_INTERRUPTS();
		pg_regerror(outcome, &result->regex, text, sizeof(text));
		*reason = MemoryContextStrdup((MemoryContext) arena, text);
		return NULL;
	}
	result->on_delete.func = free_regex;
	result->on_delete.arg = &result->regex;
	MemoryContextRegisterResetCallback((MemoryContext) arena, &result->on_delete);
	return result;
}

bool
host_regex_match(const HostRegex *regex, const char *text, size_t length)
{
	pg_wchar	few[FEW_CHARACTERS];
	pg_wchar   *wide = few;
	int			wide_length;
	int			outcome;

	if (length >= FEW_CHARACTERS)
		wide = MemoryContextAllocHuge(CurrentMemoryContext, (length + 1) * sizeof(pg_wchar));
	wide_length = pg_mb2wchar_with_len(text, wide, (int) length);
	outcome = pg_regexec(unconstify(regex_t *, &regex->regex), wide, wide_length, 0, NULL, 0, NULL, 0);
	if (wide != few)
		pfree(wide);
	if (outcome != REG_OKAY && outcome != REG_NOMATCH)
	{
		char		reason[100];

		CHECK_FOR_INTERRUPTS();
		pg_regerror(outcome, unconstify(regex_t *, &regex->regex), reason, sizeof(reason));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_REGULAR_EXPRESSION),
				 errmsg("regular expression failed: %s", reason)));
	}
	return outcome == REG_OKAY;
}

/* A number as a Datum of its own, aligned. */
static Datum
number_datum(const JsonValue *value)
{
	char	   *copy = palloc(value->length);

	memcpy(copy, value->data, value->length);
	return PointerGetDatum(copy);
}

bool
host_is_multiple(const JsonValue *number, const JsonValue *of)
{
	Datum		rest = DirectFunctionCall2(numeric_mod, number_datum(number), number_datum(of));
	Datum		zero = NumericGetDatum(int64_to_numeric(0));

	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, rest, zero)) == 0;
}
