/*
 * mask.c
 *	  Keeps the values of secrets out of what is stored or logged.
 *
 * A handler has the values and may say them anywhere: in its result, in an
 * error, in a message of its own.  Wherever one turns up, ${NAME} is put in its
 * place: as it is, as a URL has it, as a JSON text has it, and the first and the
 * last as a SQL literal has them.  In errors the beginning of a long one is found,
 * too, for PostgreSQL cuts long values off.
 *
 * Whatever the server logs passes the hook below, which also cuts off what a
 * statement says behind set_secret.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "secret/internal.h"

/* Of an error's text so many bytes of a value are enough. */
#define PART_MIN	32

/* One way in which a value may be written. */
typedef struct Form
{
	const char *text;
	int			length;
	const char *name;
} Form;

#define FORMS_EACH	7			/* ways to write a value */

struct SecretMask
{
	int			count;
	bool		begins[256];	/* whether a form begins with that byte */
	Form		forms[FLEXIBLE_ARRAY_MEMBER];
};

static emit_log_hook_type next_emit_log_hook = NULL;
static const SecretMask *log_mask = NULL;

static void
add_form(SecretMask *mask, const char *name, const char *text)
{
	int			length = strlen(text);

	if (length < SECRET_HIDDEN_MIN)
		return;
	for (int i = 0; i < mask->count; i++)
		if (strcmp(mask->forms[i].text, text) == 0)
			return;
	mask->forms[mask->count].text = text;
	mask->forms[mask->count].length = length;
	mask->forms[mask->count].name = name;
	mask->begins[(unsigned char) text[0]] = true;
	mask->count++;
}

/*
 * The text with those characters doubled.
 */
static char *
doubled(const char *text, const char *characters)
{
	StringInfoData made;

	initStringInfo(&made);
	for (; *text != '\0'; text++)
	{
		if (strchr(characters, *text) != NULL)
			appendStringInfoChar(&made, *text);
		appendStringInfoChar(&made, *text);
	}
	return made.data;
}

/*
 * The text as a URL has it.
 */
static char *
percent_encoded(const char *text)
{
	StringInfoData made;

	initStringInfo(&made);
	for (; *text != '\0'; text++)
	{
		if (isalnum((unsigned char) *text) && !IS_HIGHBIT_SET(*text))
			appendStringInfoChar(&made, *text);
		else if (strchr("-._~", *text) != NULL)
			appendStringInfoChar(&made, *text);
		else
			appendStringInfo(&made, "%%%02X", (unsigned char) *text);
	}
	return made.data;
}

/*
 * A text as it is, and as SQL literals have it.
 */
static void
add_forms(SecretMask *mask, const char *name, const char *text)
{
	add_form(mask, name, text);
	add_form(mask, name, doubled(text, "'"));
	add_form(mask, name, doubled(text, "'\\"));
}

static void
add_value(SecretMask *mask, const char *name, const char *value)
{
	StringInfoData json;

	if (value == NULL || strlen(value) < SECRET_HIDDEN_MIN)
		return;
	add_forms(mask, name, pstrdup(value));
	add_form(mask, name, percent_encoded(value));
	initStringInfo(&json);
	escape_json(&json, value);
	json.data[json.len - 1] = '\0';
	add_forms(mask, name, json.data + 1);
}

static SecretMask *
new_mask(int values)
{
	return palloc0(offsetof(SecretMask, forms) + values * FORMS_EACH * sizeof(Form));
}

SecretMask *
secret_mask(SecretUse *use, MemoryContext context)
{
	MemoryContext before = MemoryContextSwitchTo(context);
	SecretMask *mask = new_mask(use->count * 2);

	for (int i = 0; i < use->count; i++)
	{
		Secret	   *secret = use->secrets[i];
		char	   *name = psprintf("${%s}", use->names[i]);

		if (secret == NULL)
			continue;
		add_value(mask, name, secret->value);
		add_value(mask, name, secret->previous);
	}
	MemoryContextSwitchTo(before);
	return mask;
}

/*
 * The longest form that stands at the beginning of the text, and how much of it
 * does; partly: its beginning is enough where it is long.
 */
static const Form *
form_at(const SecretMask *mask, const char *text, int length, bool partly, int *matched)
{
	const Form *best = NULL;

	*matched = 0;
	if (!mask->begins[(unsigned char) text[0]])
		return NULL;
	for (int i = 0; i < mask->count; i++)
	{
		const Form *form = &mask->forms[i];
		int			most = Min(form->length, length);
		int			same = 0;

		while (same < most && text[same] == form->text[same])
			same++;
		if (same < form->length)
		{
			if (!partly || same < PART_MIN)
				continue;
			same = pg_mbcliplen(text, length, same);
		}
		if (same > *matched)
		{
			*matched = same;
			best = form;
		}
	}
	return best;
}

/*
 * The text with names for the values; false where there is none in it.
 */
static bool
hide(const SecretMask *mask, const char *text, int length, bool partly, StringInfo made)
{
	int			done = 0;
	int			i = 0;

	made->data = NULL;
	while (i < length)
	{
		int			matched;
		const Form *form = form_at(mask, text + i, length - i, partly, &matched);

		if (form == NULL)
		{
			i += pg_mblen(text + i);
			continue;
		}
		if (made->data == NULL)
			initStringInfo(made);
		appendBinaryStringInfo(made, text + done, i - done);
		appendStringInfoString(made, form->name);
		i += matched;
		done = i;
	}
	if (made->data == NULL)
		return false;
	appendBinaryStringInfo(made, text + done, length - done);
	return true;
}

char *
secret_hide_in_text(const SecretMask *mask, char *text)
{
	StringInfoData made;

	if (text == NULL || !hide(mask, text, strlen(text), true, &made))
		return text;
	return made.data;
}

static bool
hide_in_string(JsonbValue *string, void *arg)
{
	StringInfoData made;

	if (!hide(arg, string->val.string.val, string->val.string.len, false, &made))
		return false;
	string->val.string.val = made.data;
	string->val.string.len = made.len;
	return true;
}

Jsonb *
secret_hide_in_jsonb(const SecretMask *mask, Jsonb *jsonb)
{
	bool		any = false;

	if (jsonb == NULL)
		return NULL;
	/* Strings stand in a jsonb as they are. */
	for (int i = 0; i < mask->count && !any; i++)
		any = memmem(VARDATA(jsonb), VARSIZE(jsonb) - VARHDRSZ,
					 mask->forms[i].text, mask->forms[i].length) != NULL;
	return any ? jsonb_change_strings(jsonb, true, hide_in_string, unconstify(SecretMask *, mask)) :
		jsonb;
}

void
secret_hide_in_error(const SecretMask *mask, ErrorData *error)
{
	error->message = secret_hide_in_text(mask, error->message);
	error->detail = secret_hide_in_text(mask, error->detail);
	error->detail_log = secret_hide_in_text(mask, error->detail_log);
	error->hint = secret_hide_in_text(mask, error->hint);
	error->context = secret_hide_in_text(mask, error->context);
	error->internalquery = secret_hide_in_text(mask, error->internalquery);
}

static void
forget_mask(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		log_mask = NULL;
}

void
secret_hide_in_log(const SecretMask *mask)
{
	static bool registered = false;

	/* It lives no longer than the transaction, whatever ends that. */
	if (!registered)
		RegisterXactCallback(forget_mask, NULL);
	registered = true;
	log_mask = mask;
}

/*
 * A secret is being set: until the end of the transaction the log does not have
 * its value.
 */
void
secret_hide_new(const char *name, const char *value)
{
	MemoryContext before = MemoryContextSwitchTo(TopTransactionContext);
	SecretMask *mask = new_mask(1);

	add_value(mask, psprintf("${%s}", name), value);
	secret_hide_in_log(mask);
	MemoryContextSwitchTo(before);
}

/*
 * What a message says behind set_secret is cut off, and the parameters with it:
 * log_statement and its like show whole statements.
 */
static void
hide_setting(ErrorData *error)
{
	static const char call[] = "set_secret";
	char	   *end;

	if (debug_query_string != NULL && strcasestr(debug_query_string, call) != NULL)
	{
		error->hide_stmt = true;
		error->context = NULL;	/* may have the parameters */
	}
	/* Statements only: no line of a registry, which begins with a brace. */
	if (error->elevel > LOG_SERVER_ONLY || error->message == NULL || error->message[0] == '{')
		return;
	end = strcasestr(error->message, call);
	if (end != NULL)
		end += strlen(call);
	else if (error->detail != NULL && strcasestr(error->detail, call) != NULL)
		end = strchr(error->message, '(');	/* EXECUTE, and what it executes */
	if (end == NULL || *end == '\0')
		return;
	error->message = psprintf("%.*s...", (int) (end - error->message), error->message);
	error->detail = NULL;
	error->detail_log = NULL;
}

static void
look_at_message(ErrorData *error)
{
	if (log_mask != NULL)
	{
		char	   *statement = unconstify(char *, debug_query_string);

		secret_hide_in_error(log_mask, error);
		if (secret_hide_in_text(log_mask, statement) != statement)
			error->hide_stmt = true;
	}
	hide_setting(error);
	if (next_emit_log_hook)
		next_emit_log_hook(error);
}

/*
 * Called once, by _PG_init().
 */
void
tasker_secret_init(void)
{
	next_emit_log_hook = emit_log_hook;
	emit_log_hook = look_at_message;
}
