/*
 * rest_fuzz.c
 *	  Arbitrary bytes for what the REST API reads of a request before anything
 *	  else: the request line, parameters, credentials.
 *
 * The first byte says which.  What is let through must be what the next reader
 * may rely on: UTF-8 without a NUL, as many values as the statement has, an array
 * that the database would read as the same texts.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "agent.h"
#include "log.h"
#include "rest_internal.h"
#include "settings.h"

#define check(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

static const char secret[] = "the secret of the fuzzing program";

/* What rest_auth.c needs of the agent. */
const char *
setting_text(const char *name)
{
	if (strcmp(name, "jwt-role-claim") == 0)
		return "role";
	if (strcmp(name, "jwt-audience") == 0)
		return "tasker";
	if (strcmp(name, "proxy-header") == 0)
		return "X-Tasker-Role";
	if (strcmp(name, "proxy-from") == 0)
		return "10.0.0.0/8,::1,fe80::/10,unix";
	return strcmp(name, "auth") == 0 ? "on" : NULL;
}

void
log_line(LogLevel level, const char *message, ...)
{
}

bool
jwks_is_url(const char *where)
{
	return false;
}

const char *
jwks_url_problem(const char *url)
{
	return NULL;
}

bool
jwks_fetch(JwksTaker *taker)
{
	return true;
}

bool
jwks_may_come(void)
{
	return false;
}

void
jwks_stop(void)
{
}

/* ---- the request line */

static const char *
header(void *context, const char *name)
{
	return context;
}

static void
check_text(const char *text)
{
	check(text_is_utf8(text, strlen(text)));
}

static void
try_line(char *line)
{
	static const int methods[] = {METHOD_GET, METHOD_POST, METHOD_PATCH, METHOD_DELETE};
	Target		target;
	const char *problem = target_parse(&target, line);

	if (problem == NULL)
	{
		check(target.part_count >= 1);
		for (int i = 0; i < target.part_count; i++)
			check_text(target.parts[i]);
		for (int i = 0; i < target.pair_count; i++)
		{
			Text		again = {0};
			size_t		length;

			check_text(target.pairs[i].name);
			check_text(target.pairs[i].value);
			/* What a link says is read as what it was made of. */
			percent_encode(&again, target.pairs[i].value);
			if (again.length > 0)
			{
				length = again.length;
				check(percent_decode(again.data, &length, true));
				check(strcmp(again.data, target.pairs[i].value) == 0);
			}
			text_free(&again);
		}
		for (size_t m = 0; m < sizeof(methods) / sizeof(methods[0]); m++)
		{
			int			allowed;
			const Route *route = route_find(&target, methods[m], &allowed);
			Values		values;
			Text		why = {0};

			if (route == NULL)
				continue;
			if (bind_values(route, &target, header, line, &values, &why))
			{
				for (int i = 0; i < values.count; i++)
					if (values.values[i] != NULL)
						check_text(values.values[i]);
			}
			else
				check(why.length > 0);
			values_free(&values);
			text_free(&why);
		}
	}
	target_free(&target);
}

/* ---- credentials */

static JwtKeys *
keys_of_secret(void)
{
	static JwtKeys *keys;
	char	   *why;

	if (keys == NULL)
		keys = jwt_keys_of(secret, sizeof(secret) - 1, NULL, 0, &why);
	check(keys != NULL);
	return keys;
}

static void
add_base64(Text *text, const char *bytes, size_t length)
{
	char	   *encoded = malloc(length * 4 / 3 + 8);
	int			size = EVP_EncodeBlock((unsigned char *) encoded, (const unsigned char *) bytes, (int) length);

	for (int i = 0; i < size; i++)
		encoded[i] = encoded[i] == '+' ? '-' : encoded[i] == '/' ? '_' : encoded[i];
	while (size > 0 && encoded[size - 1] == '=')
		size--;
	text_add(text, encoded, (size_t) size);
	free(encoded);
}

static void
try_token(const char *token)
{
	const JwtRules rules = {.role_claim = "role", .audience = "tasker", .now = 1000000000};
	const char *why;
	bool		lacks_key;
	char	   *role = jwt_role(keys_of_secret(), &rules, token, &lacks_key, &why);

	if (role != NULL)
		check(*role != '\0' && strlen(role) < 64);
	else
		check(why != NULL && *why != '\0');
	free(role);
}

/* A token that is signed well, whatever it says: header and claims in two lines. */
static void
try_signed(const char *text, size_t length)
{
	const char *line = memchr(text, '\n', length);
	size_t		first = line != NULL ? (size_t) (line - text) : length;
	Text		token = {0};
	unsigned char signature[EVP_MAX_MD_SIZE];
	unsigned int size;

	add_base64(&token, text, first);
	text_say(&token, ".");
	if (line != NULL)
		add_base64(&token, line + 1, length - first - 1);
	HMAC(EVP_sha256(), secret, (int) sizeof(secret) - 1, (unsigned char *) token.data, token.length, signature, &size);
	text_say(&token, ".");
	add_base64(&token, (char *) signature, size);
	try_token(token.data);
	text_free(&token);
}

static void
try_keys(const char *text, size_t length)
{
	char	   *why = NULL;

	jwt_keys_free(jwt_keys_of(NULL, 0, text, length, &why));
	free(why);
	why = NULL;
	jwt_keys_free(jwt_keys_of(text, length, NULL, 0, &why));
	free(why);
}

static void
try_authorization(const char *text)
{
	char	   *who;
	const char *why;
	AuthResult	result = auth_check(text, text, false, true, &who, &why);

	check(result == AUTH_TOKEN || result == AUTH_REFUSED);
	check((who != NULL) == (result == AUTH_TOKEN));
	free(who);
	result = auth_check(NULL, text, true, true, &who, &why);
	check(result == AUTH_ROLE || result == AUTH_REFUSED);
	free(who);
	(void) auth_is_proxy(text);
}

/* ---- JSON that the agent writes */

static void
try_json(const char *text, size_t length)
{
	Text		json = {0};

	if (text_is_utf8(text, length))
	{
		text_json_bytes(&json, text, length);
		check(json.length >= length + 2);
		check(text_is_utf8(json.data, json.length));
	}
	text_free(&json);
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;

	if (size == 0)
		return 0;
	text = malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0] % 6)
	{
		case 0:
			try_line(text);
			break;
		case 1:
			try_token(text);
			break;
		case 2:
			try_signed(text, size - 1);
			break;
		case 3:
			try_keys(text, size - 1);
			break;
		case 4:
			try_authorization(text);
			break;
		case 5:
			try_json(text, size - 1);
			break;
	}
	free(text);
	return 0;
}
