/*
 * rest_auth.c
 *	  Who asks: by a bearer token of the database's, by a JSON Web Token, or by
 *	  what a trusted proxy says.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent.h"
#include "log.h"
#include "network.h"
#include "rest_internal.h"
#include "settings.h"

/* Who begins like this is the database's to know. */
#define TOKEN_PREFIX	"tsk_"
#define MAX_CREDENTIAL	8192

static pthread_rwlock_t keys_lock = PTHREAD_RWLOCK_INITIALIZER;
static JwtKeys *keys;

/* Whoever makes new keys, and what he makes them of besides files. */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
static Text fetched;			/* the last good set of a URL */
static const char *fetched_from;	/* NULL: there is none */

/*
 * Makes the keys of what the settings name, or none.  Where that fails those that
 * there are stay.
 */
static bool
make_keys(char **why)
{
	const char *key_file = setting_text("jwt-key");
	const char *jwks = setting_text("jwks");
	bool		is_url = jwks_is_url(jwks);
	JwtKeys    *fresh = NULL;

	/* What another address gave is not to be trusted any longer. */
	if (fetched_from != NULL && (!is_url || strcmp(fetched_from, jwks) != 0))
	{
		text_free(&fetched);
		fetched_from = NULL;
	}
	if (key_file != NULL || jwks != NULL)
	{
		fresh = jwt_keys_read(key_file, is_url ? NULL : jwks, &fetched, why);
		if (fresh == NULL)
			return false;
	}
	pthread_rwlock_wrlock(&keys_lock);
	jwt_keys_free(keys);
	keys = fresh;
	pthread_rwlock_unlock(&keys_lock);
	return true;
}

/* Called by the thread that fetches: a set that is good replaces the last one. */
static bool
take_set(const char *url, const char *set, size_t length, char **why)
{
	const char *jwks;
	Text		last;
	const char *last_from;
	bool		is_good = true;

	pthread_mutex_lock(&making);
	jwks = setting_text("jwks");
	/* The settings have changed meanwhile, and it is fetched again. */
	if (jwks != NULL && strcmp(jwks, url) == 0)
	{
		last = fetched;
		last_from = fetched_from;
		fetched = (Text) {0};
		text_add(&fetched, set != NULL ? set : "", length);
		fetched_from = jwks;
		is_good = make_keys(why);
		if (is_good)
			text_free(&last);
		else
		{
			text_free(&fetched);
			fetched = last;
			fetched_from = last_from;
		}
	}
	pthread_mutex_unlock(&making);
	return is_good;
}

static bool
load_keys(void)
{
	const char *jwks = setting_text("jwks");
	const char *problem = jwks_is_url(jwks) ? jwks_url_problem(jwks) : NULL;
	char	   *why = problem != NULL ? text_copy(problem) : NULL;
	bool		is_done;

	pthread_mutex_lock(&making);
	is_done = problem == NULL && make_keys(&why);
	pthread_mutex_unlock(&making);
	if (!is_done)
		log_line(LOG_ERROR, "could not read the keys of JSON Web Tokens", "why", why, NULL);
	else if (jwks_is_url(jwks))
		is_done = jwks_fetch(take_set);
	free(why);
	return is_done;
}

/* Who may say on whose behalf. */
static Network *proxies;
static int	proxy_count;
static bool unix_is_proxy;

/*
 * Reads proxy-from, or says which entry is none.
 */
static bool
read_proxies(void)
{
	const char *list = setting_text("proxy-from");
	char	   *copy;
	char	   *rest;
	const char *problem = NULL;

	if (list == NULL)
		return true;
	copy = text_copy(list);
	proxies = allocate(sizeof(Network) * (strlen(list) + 1));
	rest = copy;
	for (char *word = strsep(&rest, ","); word != NULL && problem == NULL; word = strsep(&rest, ","))
	{
		size_t		length;

		word += strspn(word, " ");
		length = strlen(word);
		while (length > 0 && word[length - 1] == ' ')
			word[--length] = '\0';
		if (strcmp(word, "unix") == 0)
			unix_is_proxy = true;
		else
			problem = network_problem(word, &proxies[proxy_count++]);
		if (problem != NULL)
			complain("proxy-from: \"%s\" %s; an entry is an address, a network as 10.0.0.0/8, or unix", word, problem);
	}
	free(copy);
	return problem == NULL;
}

bool
auth_start(void)
{
	if (!load_keys())
	{
		complain("the keys of JSON Web Tokens (jwt-key, jwks) can't be used");
		return false;
	}
	if (setting_text("proxy-header") != NULL && setting_text("proxy-from") == NULL)
	{
		complain("proxy-header needs proxy-from: who may send it");
		return false;
	}
	return read_proxies();
}

/* Keys that can't be read leave those that there are. */
void
auth_reload(void)
{
	(void) load_keys();
}

void
auth_stop(void)
{
	jwks_stop();
	free(proxies);
	proxies = NULL;
	proxy_count = 0;
}

static bool
is_loopback(const char *listen)
{
	return strncmp(listen, "127.", 4) == 0 || strncmp(listen, "localhost:", 10) == 0 ||
		strncmp(listen, "[::1]:", 6) == 0 || strncmp(listen, "unix:", 5) == 0;
}

/*
 * Off by itself only where nobody but this machine gets in.
 */
bool
auth_is_required(void)
{
	const char *wanted = setting_text("auth");

	if (strcmp(wanted, "auto") == 0)
		return !is_loopback(setting_text("listen"));
	return strcmp(wanted, "on") == 0;
}

/*
 * Whether who is connected may say on whose behalf; address: "unix", or a
 * number.
 */
bool
auth_is_proxy(const char *address)
{
	Address		own;

	if (setting_text("proxy-header") == NULL)
		return false;
	if (strcmp(address, "unix") == 0)
		return unix_is_proxy;
	if (!address_parse(address, &own))
		return false;
	for (int i = 0; i < proxy_count; i++)
		if (network_has(&proxies[i], &own))
			return true;
	return false;
}

static AuthResult
check_bearer(const char *token, char **who, const char **why)
{
	JwtRules	rules = {
		.role_claim = setting_text("jwt-role-claim"),
		.issuer = setting_text("jwt-issuer"),
		.audience = setting_text("jwt-audience"),
		.now = (long long) time(NULL)
	};
	bool		lacks_key = false;

	if (strncmp(token, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) == 0)
	{
		*who = text_copy(token);
		return AUTH_TOKEN;
	}
	*why = "The token is unknown.";
	pthread_rwlock_rdlock(&keys_lock);
	if (keys != NULL)
		*who = jwt_role(keys, &rules, token, &lacks_key, why);
	pthread_rwlock_unlock(&keys_lock);
	if (*who != NULL)
		return AUTH_ROLE;
	if (!lacks_key || !jwks_is_url(setting_text("jwks")) || !jwks_may_come())
		return AUTH_REFUSED;
	*why = "The key that the token is signed by is not there yet.";
	return AUTH_LATER;
}

/*
 * Whose request it is.  who, to be freed, is a role or a token; what the proxy
 * says counts only where it is one, and goes before.
 */
AuthResult
auth_check(const char *authorization, const char *proxy_role, bool is_proxy, bool is_required,
		   char **who, const char **why)
{
	*who = NULL;
	*why = NULL;
	if (is_proxy && proxy_role != NULL && *proxy_role != '\0')
	{
		*why = "The proxy names no role.";
		if (strlen(proxy_role) >= 64 || !text_is_utf8(proxy_role, strlen(proxy_role)))
			return AUTH_REFUSED;
		*who = text_copy(proxy_role);
		return AUTH_ROLE;
	}
	if (authorization != NULL)
	{
		const char *token = authorization + strlen("Bearer ");

		*why = "Authorization must be: Bearer, and a token.";
		if (strncasecmp(authorization, "Bearer ", strlen("Bearer ")) != 0 || strlen(authorization) > MAX_CREDENTIAL)
			return AUTH_REFUSED;
		token += strspn(token, " ");
		for (const char *c = token; *c != '\0'; c++)
			if ((unsigned char) *c <= 0x20 || (unsigned char) *c >= 0x7F)
				return AUTH_REFUSED;
		return check_bearer(token, who, why);
	}
	if (!is_required)
		return AUTH_NONE;
	*why = "Credentials are required.";
	return AUTH_REFUSED;
}
