/*
 * activation.c
 *	  Reads whether the engine may run here, tasker.activation and tasker.origin.
 *
 * The tables are scanned directly, not through SPI, and the answer is kept
 * until the server says that one of them has changed: the triggers on them and
 * tasker._activation_changed() see to it that it does.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "engine/activation.h"
#include "shared_memory.h"
#include "tasker.h"

/* Columns of tasker.activation, in the order of its definition. */
enum
{
	ACTIVATION_ONLY = 1,
	ACTIVATION_SYSTEM_IDENTIFIER,
	ACTIVATION_DATABASE_OID,
	ACTIVATION_STATE,
	ACTIVATION_XID_BASE,
	ACTIVATION_XID_SYSTEM
};

/* Columns of tasker.origin. */
enum
{
	ORIGIN_SYSTEM_IDENTIFIER = 1,
	ORIGIN_DATABASE_OID
};

typedef struct Activation
{
	bool		valid;			/* what follows is what the tables say */
	EngineState state;
	bool		xid_settled;	/* xid_base was made on this server */
	int64		xid_base;
} Activation;

static Activation cache;
static uint32 changes = 1;
static Oid	activation_relid = InvalidOid;
static Oid	origin_relid = InvalidOid;

PG_FUNCTION_INFO_V1(tasker_identity);
PG_FUNCTION_INFO_V1(tasker_activation_changed);
PG_FUNCTION_INFO_V1(tasker_activation_trigger);
PG_FUNCTION_INFO_V1(tasker_engine_state);

/* The server's cache of one of our tables was thrown away: read it again. */
static void
activation_invalidate(Datum arg, Oid relid)
{
	if (relid != InvalidOid && relid != activation_relid && relid != origin_relid)
		return;
	cache.valid = false;
	changes++;
}

uint32
activation_changes(void)
{
	return changes;
}

/* Finds the two tables, and listens for their changes. */
void
activation_watch(void)
{
	static bool registered = false;
	Oid			schema;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(activation_invalidate, (Datum) 0);
		registered = true;
	}
	schema = get_namespace_oid("tasker", true);
	activation_relid = OidIsValid(schema) ? get_relname_relid("activation", schema) : InvalidOid;
	origin_relid = OidIsValid(schema) ? get_relname_relid("origin", schema) : InvalidOid;
	if (!OidIsValid(activation_relid) || !OidIsValid(origin_relid))
		ereport(ERROR,
				(errcode(ERRCODE_TASKER_NOT_FOUND),
				 errmsg("extension tasker is not installed in this database"),
				 errhint("Run CREATE EXTENSION tasker.")));
}

/* Whether a row's identity is this server's and this database's. */
static bool
identity_is_mine(int64 system_identifier, Oid database)
{
	return (uint64) system_identifier == GetSystemIdentifier() && database == MyDatabaseId;
}

static Datum
column(HeapTuple tuple, TupleDesc desc, int number)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, number, desc, &isnull);

	return isnull ? (Datum) 0 : value;
}

/* The one row of tasker.activation.  False: a row of this very transaction. */
static bool
read_activation(Activation *activation, Snapshot snapshot)
{
	Relation	relation = table_open(activation_relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, NULL);
	TupleDesc	desc = RelationGetDescr(relation);
	HeapTuple	tuple = systable_getnext(scan);
	bool		committed = true;

	activation->state = ENGINE_RESTORED;
	activation->xid_base = 0;
	activation->xid_settled = false;
	if (HeapTupleIsValid(tuple))
	{
		char	   *state = TextDatumGetCString(column(tuple, desc, ACTIVATION_STATE));

		if (strcmp(state, "deactivated") == 0)
			activation->state = ENGINE_DEACTIVATED;
		else if (strcmp(state, "active") == 0 &&
				 identity_is_mine(DatumGetInt64(column(tuple, desc, ACTIVATION_SYSTEM_IDENTIFIER)),
								  DatumGetObjectId(column(tuple, desc, ACTIVATION_DATABASE_OID))))
			activation->state = ENGINE_ACTIVE;
		activation->xid_base = DatumGetInt64(column(tuple, desc, ACTIVATION_XID_BASE));
		activation->xid_settled =
			(uint64) DatumGetInt64(column(tuple, desc, ACTIVATION_XID_SYSTEM)) == GetSystemIdentifier();
		committed = !TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
		pfree(state);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return committed;
}

/* Whether tasker.origin has a row of another server or database. */
static bool
origin_is_foreign(Snapshot snapshot)
{
	Relation	relation = table_open(origin_relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, NULL);
	TupleDesc	desc = RelationGetDescr(relation);
	HeapTuple	tuple;
	bool		foreign = false;

	while (!foreign && HeapTupleIsValid(tuple = systable_getnext(scan)))
		foreign = !identity_is_mine(DatumGetInt64(column(tuple, desc, ORIGIN_SYSTEM_IDENTIFIER)),
									DatumGetObjectId(column(tuple, desc, ORIGIN_DATABASE_OID)));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return foreign;
}

/*
 * What the tables say now.  What this transaction wrote itself may still roll
 * back, so that is not kept.
 */
static const Activation *
activation_read(void)
{
	Snapshot	snapshot;
	Activation	read;
	bool		keep;

	if (cache.valid)
		return &cache;

	activation_watch();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	do
	{
		/* A change that arrives while we read makes us read again. */
		uint32		before = changes;

		keep = read_activation(&read, snapshot);
		if (read.state == ENGINE_ACTIVE && origin_is_foreign(snapshot))
			read.state = ENGINE_RESTORED;
		if (before == changes)
			break;
		UnregisterSnapshot(snapshot);
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	} while (true);
	UnregisterSnapshot(snapshot);

	cache = read;
	cache.valid = keep;
	return &cache;
}

EngineState
engine_state(void)
{
	return activation_read()->state;
}

bool
engine_may_run(void)
{
	return activation_read()->state == ENGINE_ACTIVE;
}

/*
 * Ids of log rows that came from another server may be above what this
 * server's transaction ids give, so the first writer here lifts the base.
 */
static void
settle_xid_base(void)
{
	Oid			user;
	int			context;
	Oid			owner;
	Relation	relation = table_open(activation_relid, AccessShareLock);

	owner = relation->rd_rel->relowner;
	table_close(relation, AccessShareLock);

	/* An error leaves the user to be restored by the end of the transaction. */
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (SPI_execute("SELECT tasker._settle_xid_base()", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "tasker._settle_xid_base() could not be run");
	SPI_finish();
	SetUserIdAndSecContext(user, context);
}

int64
engine_xid_base(void)
{
	const Activation *activation = activation_read();

	if (activation->xid_settled)
		return activation->xid_base;
	settle_xid_base();
	cache.valid = false;
	return activation_read()->xid_base;
}

/* tasker._identity(): this server and this database */
Datum
tasker_identity(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum((int64) GetSystemIdentifier());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Makes every backend read the tables again, and wakes those that sleep. */
static void
announce_change(void)
{
	activation_watch();
	CacheInvalidateRelcacheByRelid(activation_relid);
	tasker_note_everything();
}

/* tasker._activation_changed() */
Datum
tasker_activation_changed(PG_FUNCTION_ARGS)
{
	announce_change();
	PG_RETURN_VOID();
}

/* The trigger on both tables, for those who change them by hand or restore. */
Datum
tasker_activation_trigger(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("tasker._activation_trigger() is a trigger function")));
	announce_change();
	PG_RETURN_POINTER(NULL);
}

/* tasker._engine_state(): active, restored or deactivated */
Datum
tasker_engine_state(PG_FUNCTION_ARGS)
{
	static const char *const name[] = {
		[ENGINE_ACTIVE] = "active",
		[ENGINE_RESTORED] = "restored",
		[ENGINE_DEACTIVATED] = "deactivated"
	};

	PG_RETURN_TEXT_P(cstring_to_text(name[engine_state()]));
}
