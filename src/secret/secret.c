/*
 * secret.c
 *	  The values of secrets, as a process keeps them.
 *
 * Each is read once, when a step first needs it, and again after somebody has
 * set or dropped any: what is kept goes as a whole when that commits, and comes
 * back by need.  So a step costs no statement, and a step without secrets costs
 * nothing at all.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "secret/internal.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_check_secret);
PG_FUNCTION_INFO_V1(tasker_secrets_changed);

static MemoryContext cache_context = NULL;
static HTAB *secrets = NULL;	/* name to Secret */
static Oid	secret_table = InvalidOid;
static uint64 generation = 0;	/* of the cache */
static bool stale = false;

static Statement read_secret = {
	.sql = "SELECT value, previous FROM tasker.secret WHERE name = $1",
	.arg_count = 1,
	.arg_types = {TEXTOID},
};

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == secret_table || relid == InvalidOid)
		stale = true;
}

/*
 * Throws away what a change has made stale.
 */
static void
refresh(void)
{
	static bool registered = false;
	HASHCTL		ctl = {0};

	if (secrets != NULL && !stale)
		return;
	if (!registered)
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	registered = true;
	secrets = NULL;
	if (cache_context != NULL)
		MemoryContextDelete(cache_context);
	cache_context = NULL;
	stale = false;
	secret_table = get_relname_relid("secret", get_namespace_oid("tasker", false));

	cache_context = AllocSetContextCreate(CacheMemoryContext, "tasker secrets",
										  ALLOCSET_SMALL_SIZES);
	ctl.hcxt = cache_context;
	ctl.keysize = sizeof(((Secret *) 0)->name);
	ctl.entrysize = sizeof(Secret);
	secrets = hash_create("tasker secrets", 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	generation++;
}

/*
 * The secret of that name, read if need be; NULL where no secret can have it.
 */
static Secret *
look_up(const char *name)
{
	Secret	   *secret;
	char	   *value = NULL;
	char	   *previous = NULL;
	Datum		arg;

	if (strlen(name) > SECRET_NAME_MAX)
		return NULL;
	secret = hash_search(secrets, name, HASH_FIND, NULL);
	if (secret != NULL)
		return secret;

	/* Read first: an error must not leave an entry without its value. */
	arg = CStringGetTextDatum(name);
	if (statement_run(&read_secret, &arg, NULL) > 0)
	{
		value = row_text(0, 1, cache_context);
		previous = row_text(0, 2, cache_context);
	}
	SPI_freetuptable(SPI_tuptable);
	secret = hash_search(secrets, name, HASH_ENTER, NULL);
	secret->value = value;
	secret->previous = previous;
	return secret;
}

/* What collects the names of a configuration. */
typedef struct Collection
{
	List	   *names;
	bool		any;			/* literals, too */
} Collection;

static bool
collect_names(JsonbValue *string, void *arg)
{
	Collection *collection = arg;
	Reference	found = {0};

	while (reference_next(string->val.string.val, string->val.string.len,
						  found.start + found.length, &found))
	{
		char	   *name;
		ListCell   *cell;
		bool		known = found.literal;

		collection->any = true;
		name = pnstrdup(string->val.string.val + found.name, found.name_length);
		foreach(cell, collection->names)
			known = known || strcmp(lfirst(cell), name) == 0;
		if (!known)
			collection->names = lappend(collection->names, name);
	}
	return false;
}

SecretUse *
secret_use(Jsonb *config, MemoryContext context)
{
	Collection	collection = {0};
	SecretUse  *use;
	MemoryContext before;

	/* Strings stand in a jsonb as they are. */
	if (memmem(VARDATA(config), VARSIZE(config) - VARHDRSZ, "${", 2) == NULL)
		return NULL;
	(void) jsonb_change_strings(config, false, collect_names, &collection);
	if (!collection.any)
		return NULL;

	before = MemoryContextSwitchTo(context);
	use = palloc0(sizeof(SecretUse));
	use->count = list_length(collection.names);
	use->names = palloc(Max(use->count, 1) * sizeof(char *));
	use->secrets = palloc0(Max(use->count, 1) * sizeof(Secret *));
	for (int i = 0; i < use->count; i++)
		use->names[i] = pstrdup(list_nth(collection.names, i));
	use->context = context;
	MemoryContextSwitchTo(before);
	return use;
}

/*
 * The secrets as they are now.
 */
static void
use_now(SecretUse *use)
{
	refresh();
	if (use->generation == generation)
		return;
	if (use->config != NULL)
		pfree(use->config);
	use->config = NULL;
	use->generation = 0;
	for (int i = 0; i < use->count; i++)
		use->secrets[i] = look_up(use->names[i]);
	use->generation = generation;
}

static bool
is_set(const Secret *secret)
{
	return secret != NULL && secret->value != NULL;
}

bool
secret_is_missing(SecretUse *use, const char *step, ErrorData *error)
{
	use_now(use);
	for (int i = 0; i < use->count; i++)
	{
		if (is_set(use->secrets[i]))
			continue;
		error->sqlerrcode = ERRCODE_TASKER_PERMANENT;
		error->message = psprintf("secret \"%s\" is not set", use->names[i]);
		error->detail = psprintf("The handler_config of step \"%s\" has ${%s}.", step,
								 use->names[i]);
		error->hint = psprintf("Set it by SELECT tasker.set_secret('%s', '...'); then retry the step.",
							   use->names[i]);
		return true;
	}
	return false;
}

/*
 * A string with values for its references; names are those of the use.
 */
static bool
put_values(JsonbValue *string, void *arg)
{
	SecretUse  *use = arg;
	char	   *text = string->val.string.val;
	int			length = string->val.string.len;
	Reference	found;
	int			from = 0;
	StringInfoData made;

	if (!reference_next(text, length, 0, &found))
		return false;
	initStringInfo(&made);
	do
	{
		appendBinaryStringInfo(&made, text + from, found.start - from);
		from = found.start + found.length;
		if (found.literal)
		{
			/* All but the first dollar. */
			appendBinaryStringInfo(&made, text + found.start + 1, found.length - 1);
			continue;
		}
		for (int i = 0; i < use->count; i++)
			if (strlen(use->names[i]) == found.name_length &&
				memcmp(use->names[i], text + found.name, found.name_length) == 0)
			{
				appendStringInfoString(&made, use->secrets[i]->value);
				break;
			}
	} while (reference_next(text, length, from, &found));
	appendBinaryStringInfo(&made, text + from, length - from);
	string->val.string.val = made.data;
	string->val.string.len = made.len;
	return true;
}

Jsonb *
secret_config(SecretUse *use, Jsonb *config, const char *step)
{
	ErrorData	error = {0};

	if (secret_is_missing(use, step, &error))
		ereport(ERROR,
				errcode(error.sqlerrcode),
				errmsg_internal("%s", error.message),
				errdetail_internal("%s", error.detail),
				errhint("%s", error.hint));
	if (use->config == NULL)
	{
		Jsonb	   *made = jsonb_change_strings(config, false, put_values, use);
		MemoryContext before = MemoryContextSwitchTo(use->context);

		use->config = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(made));
		MemoryContextSwitchTo(before);
	}
	return use->config;
}

SecretMask *
secret_mask_now(SecretUse *use, MemoryContext context)
{
	use_now(use);
	return secret_mask(use, context);
}

/*
 * What is wrong with a name or a value, as an error that has neither the value
 * nor the statement with it.
 */
static void
refuse(int sqlstate, const char *message, const char *detail, const char *hint)
{
	ereport(ERROR,
			errcode(sqlstate),
			errmsg_internal("%s", message),
			errdetail_internal("%s", detail),
			errhint("%s", hint),
			errhidestmt(true),
			errhidecontext(true));
}

static bool
is_name(const char *name)
{
	char	   *whole = psprintf("${%s}", name);
	Reference	found;

	return reference_next(whole, strlen(whole), 0, &found) && found.start == 0 &&
		found.length == strlen(whole) && found.name_length <= SECRET_NAME_MAX;
}

/*
 * tasker._check_secret(name text, value text)
 */
Datum
tasker_check_secret(PG_FUNCTION_ARGS)
{
	char	   *name;
	int			length;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		refuse(ERRCODE_NULL_VALUE_NOT_ALLOWED, "name and value of a secret must not be NULL",
			   PG_ARGISNULL(0) ? "The argument name is NULL." : "The argument value is NULL.",
			   "tasker.drop_secret() removes a secret.");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!is_name(name))
	{
		int			shown = pg_mbcliplen(name, strlen(name), SECRET_NAME_MAX);

		refuse(ERRCODE_INVALID_PARAMETER_VALUE, "a secret can't have this name",
			   psprintf("The name is \"%.*s\".", shown, name),
			   "A name has 1 to 128 letters, digits and underscores, and begins with no digit.");
	}
	length = VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(1));
	if (length == 0 || length > SECRET_VALUE_MAX)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE,
			   length == 0 ? "the value of a secret must not be empty" :
			   "the value of a secret is longer than 1 MB",
			   psprintf("The secret is \"%s\".", name),
			   "tasker.drop_secret() removes a secret.");
	if (length < SECRET_HIDDEN_MIN)
		ereport(WARNING,
				errmsg("the value of secret \"%s\" is too short to be hidden", name),
				errdetail("A value of less than 4 bytes is not looked for in errors and results."),
				errhidestmt(true),
				errhidecontext(true));
	secret_hide_new(name, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/*
 * tasker._secrets_changed()
 */
Datum
tasker_secrets_changed(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("secret",
													 get_namespace_oid("tasker", false)));
	PG_RETURN_VOID();
}
