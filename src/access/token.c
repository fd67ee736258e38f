/*
 * token.c
 *	  Makes the tokens of tasker-agent's clients.
 */
#include "postgres.h"

#include "common/base64.h"
#include "fmgr.h"
#include "utils/builtins.h"

#define TOKEN_PREFIX	"tsk_"
#define TOKEN_BYTES		32

PG_FUNCTION_INFO_V1(tasker_random_token);

/*
 * tasker._random_token()
 */
Datum
tasker_random_token(PG_FUNCTION_ARGS)
{
	char		bytes[TOKEN_BYTES];
	char		text[sizeof(TOKEN_PREFIX) + TOKEN_BYTES * 2] = TOKEN_PREFIX;
	char	   *code = text + strlen(TOKEN_PREFIX);
	int			length;

	if (!pg_strong_random(bytes, TOKEN_BYTES))
		ereport(ERROR,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not get random bytes"));
	length = pg_b64_encode(bytes, TOKEN_BYTES, code, pg_b64_enc_len(TOKEN_BYTES));
	Assert(length > 0);
	/* base64url, without the padding. */
	code[length] = '\0';
	for (char *c = code; *c != '\0'; c++)
	{
		if (*c == '+')
			*c = '-';
		else if (*c == '/')
			*c = '_';
		else if (*c == '=')
			*c = '\0';
	}
	PG_RETURN_TEXT_P(cstring_to_text(text));
}
