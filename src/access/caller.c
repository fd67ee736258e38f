/*
 * caller.c
 *	  How a function that writes the engine's tables learns who called it.
 *
 * Such a function is SECURITY DEFINER, and inside it current_user and
 * search_path are the definer's.  The outer user (GetOuterUserId, or
 * session_user) is no answer: where ANALYZE evaluates an index expression, or
 * an executor runs a handler, that is a superuser, and whoever wrote the
 * expression or the handler could act in his name.  So the public function is
 * the one below: it runs as its caller, whose role and search_path it can still
 * see, and hands them on to the private function that does the work.  That one
 * is not executable by anybody, so nobody can hand it another role.
 *
 * While it works, access_caller() says the same to whatever it calls that runs
 * as its definer, without an argument for it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "access/access.h"

#define MAX_EXTRA_ARGS	2

/* The private function behind a public one; lives as long as the call site. */
typedef struct Target
{
	FmgrInfo	flinfo;
	int			nargs;
	Oid			definer;		/* InvalidOid: runs as its caller */
} Target;

/* The innermost call at work, and whom its private function runs as. */
static Oid	caller = InvalidOid;
static Oid	caller_definer = InvalidOid;

PG_FUNCTION_INFO_V1(tasker_with_caller);

/*
 * The private function has the public one's name behind an underscore, its
 * arguments, and after them, if it takes them, the caller's role and his
 * search_path.
 */
static Target *
find_target(FmgrInfo *flinfo)
{
	Target	   *target;
	HeapTuple	tuple;
	Form_pg_proc proc;
	char	   *name;
	Oid			arg_types[FUNC_MAX_ARGS];
	Oid			namespace;
	Oid			function = InvalidOid;
	int			nargs;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(flinfo->fn_oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", flinfo->fn_oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	name = psprintf("_%s", NameStr(proc->proname));
	namespace = proc->pronamespace;
	nargs = proc->pronargs;
	if (nargs + MAX_EXTRA_ARGS > FUNC_MAX_ARGS)
		elog(ERROR, "function %s has too many arguments", NameStr(proc->proname));
	memcpy(arg_types, proc->proargtypes.values, nargs * sizeof(Oid));
	ReleaseSysCache(tuple);

	for (int extra = 0; extra <= MAX_EXTRA_ARGS && !OidIsValid(function); extra++)
	{
		oidvector  *vector;

		if (extra > 0)
			arg_types[nargs++] = TEXTOID;
		vector = buildoidvector(arg_types, nargs);
		function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
								   CStringGetDatum(name),
								   PointerGetDatum(vector),
								   ObjectIdGetDatum(namespace));
	}
	if (!OidIsValid(function))
		elog(ERROR, "there is no function %s that takes the caller", name);

	target = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(Target));
	fmgr_info_cxt(function, &target->flinfo, flinfo->fn_mcxt);
	target->nargs = nargs;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	target->definer = proc->prosecdef ? proc->proowner : InvalidOid;
	ReleaseSysCache(tuple);
	return target;
}

/*
 * Whoever is not the definer got here by another way: he is a handler's role,
 * or a trigger's.
 */
Oid
access_caller(void)
{
	if (OidIsValid(caller) && GetUserId() == caller_definer)
		return caller;
	return GetUserId();
}

void
access_forget_caller(void)
{
	caller = InvalidOid;
}

void
access_recall_caller(Oid role)
{
	caller = role;
}

/*
 * Calls the private function; meanwhile access_caller() knows who called it.
 */
static Datum
call_for_caller(FunctionCallInfo call, Oid definer)
{
	Oid			outer_caller = caller;
	Oid			outer_definer = caller_definer;
	Oid			role = access_caller();
	Datum		result;

	PG_TRY();
	{
		/* Where one private function calls a public one, still the first caller. */
		caller = role;
		caller_definer = definer;
		result = FunctionCallInvoke(call);
	}
	PG_FINALLY();
	{
		caller = outer_caller;
		caller_definer = outer_definer;
	}
	PG_END_TRY();
	return result;
}

/* Calls the private function with the caller's role and search_path. */
Datum
tasker_with_caller(PG_FUNCTION_ARGS)
{
	Target	   *target = fcinfo->flinfo->fn_extra;
	int			nargs = PG_NARGS();
	Datum		result;

	LOCAL_FCINFO(call, FUNC_MAX_ARGS);

	if (target == NULL)
	{
		target = find_target(fcinfo->flinfo);
		fcinfo->flinfo->fn_extra = target;
	}

	InitFunctionCallInfoData(*call, &target->flinfo, target->nargs,
							 PG_GET_COLLATION(), NULL, fcinfo->resultinfo);
	memcpy(call->args, fcinfo->args, nargs * sizeof(NullableDatum));
	if (target->nargs > nargs)
	{
		call->args[nargs].value = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
		call->args[nargs].isnull = false;
	}
	if (target->nargs > nargs + 1)
	{
		call->args[nargs + 1].value = CStringGetTextDatum(namespace_search_path);
		call->args[nargs + 1].isnull = false;
	}

	result = call_for_caller(call, target->definer);
	fcinfo->isnull = call->isnull;
	return result;
}
