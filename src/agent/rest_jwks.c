/*
 * rest_jwks.c
 *	  The key set of JSON Web Tokens behind a URL: fetched by a thread of its own,
 *	  at the start, every jwks-refresh, and when a token names a key that the set
 *	  lacks.
 *
 * No request waits for it.  Where a fetch fails, the set that there is stays.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include <curl/curl.h>

#include "agent.h"
#include "log.h"
#include "rest_internal.h"
#include "settings.h"

#define TIMEOUT_MS		10000L
#define MAX_SET			(1024 * 1024)
#define RETRY_MS		10000
/* How often tokens, which anybody can make up, may have it fetched. */
#define ASK_EVERY_MS	10000

typedef struct Fetch
{
	Text		set;
	bool		is_too_long;
	bool		only_loopback;
	bool		was_elsewhere;
} Fetch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER;
static pthread_t thread;
static bool has_thread;
static bool stopping;
static bool is_wanted;			/* a fetch that has not begun */
static bool is_behind;			/* the set may lack what there is by now */
static long long asked_at;		/* by a token, in ms; 0: never */
static int	failures;			/* in a row */
static JwksTaker *take_set;

bool
jwks_is_url(const char *where)
{
	return where != NULL && strstr(where, "://") != NULL;
}

/* ---- what may be fetched */

static bool
is_loopback_name(const char *host)
{
	struct in_addr v4;

	return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
		(inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == IN_LOOPBACKNET);
}

static bool
is_loopback_address(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return address->sa_family == AF_INET6 &&
		IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) address)->sin6_addr);
}

/*
 * Whoever changes a set on its way signs whatever tokens he likes, so it comes
 * over TLS, or does not leave this machine.  Says what is wrong, or NULL.
 */
static const char *
check_url(const char *text, bool *only_loopback)
{
	CURLU	   *url = curl_url();
	char	   *scheme = NULL;
	char	   *host = NULL;
	const char *problem = NULL;

	*only_loopback = false;
	if (url == NULL || curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
		curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
		problem = "it is no URL";
	else if (strcasecmp(scheme, "http") == 0 && is_loopback_name(host))
		*only_loopback = true;
	else if (strcasecmp(scheme, "https") != 0)
		problem = "a URL of a key set is one of https, or of http at this machine";
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(url);
	return problem;
}

const char *
jwks_url_problem(const char *url)
{
	bool		only_loopback;

	return check_url(url, &only_loopback);
}

/* ---- one fetch */

/* A name that stands for this machine may lead elsewhere. */
static curl_socket_t
open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
	Fetch	   *fetch = context;

	if (fetch->only_loopback && !is_loopback_address(&address->addr))
	{
		fetch->was_elsewhere = true;
		return CURL_SOCKET_BAD;
	}
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t
take_body(char *data, size_t size, size_t count, void *context)
{
	Fetch	   *fetch = context;

	if (fetch->set.length + size * count > MAX_SET)
	{
		fetch->is_too_long = true;
		return 0;
	}
	text_add(&fetch->set, data, size * count);
	return size * count;
}

/* Called once a second at least. */
static int
go_on(void *context, curl_off_t total, curl_off_t now, curl_off_t total_up, curl_off_t now_up)
{
	bool		is_over;

	pthread_mutex_lock(&lock);
	is_over = stopping;
	pthread_mutex_unlock(&lock);
	return is_over ? 1 : 0;
}

static void
set_options(CURL *easy, const char *url, Fetch *fetch)
{
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, fetch->only_loopback ? "http" : "https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	if (setting_text("tls-ca") != NULL)
		curl_easy_setopt(easy, CURLOPT_CAINFO, setting_text("tls-ca"));
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "tasker-agent/" TASKER_VERSION);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, fetch);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, fetch);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, go_on);
}

/* Why there is no set, to be freed; NULL: it was taken. */
static char *
fetch_set(const char *url)
{
	Fetch		fetch = {0};
	const char *problem = check_url(url, &fetch.only_loopback);
	CURL	   *easy = problem == NULL ? curl_easy_init() : NULL;
	char	   *why = NULL;
	CURLcode	code;
	long		status = 0;

	if (easy == NULL)
		return text_copy(problem != NULL ? problem : "out of memory");
	set_options(easy, url, &fetch);
	code = curl_easy_perform(easy);
	(void) curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	if (fetch.is_too_long)
		why = text_copy("it is longer than 1 MB");
	else if (fetch.was_elsewhere && code != CURLE_OK)
		why = text_copy("its name leads to another machine, where http is not enough");
	else if (code != CURLE_OK)
		why = text_copy(curl_easy_strerror(code));
	else if (status != 200)
		why = text_format("the answer's status is %ld", status);
	else if (!take_set(url, fetch.set.data, fetch.set.length, &why) && why == NULL)
		why = text_copy("out of memory");
	text_free(&fetch.set);
	curl_easy_cleanup(easy);
	return why;
}

/* Said once where it goes on failing. */
static bool
fetch_and_say(const char *url)
{
	char	   *why = fetch_set(url);
	bool		is_done = why == NULL;

	if (is_done && failures > 0)
		log_line(LOG_INFO, "the key set of JSON Web Tokens was fetched", NULL);
	failures = is_done ? 0 : failures + 1;
	if (failures == 1)
		log_line(LOG_WARNING, "could not fetch the key set of JSON Web Tokens", "why", why, NULL);
	free(why);
	return is_done;
}

static void
wait_until(long long until)
{
	const struct timespec time = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};

	while (!is_wanted && !stopping &&
		   pthread_cond_clockwait(&called, &lock, CLOCK_MONOTONIC, &time) == 0)
		;
}

static void *
run(void *argument)
{
	pthread_mutex_lock(&lock);
	while (!stopping)
	{
		const char *url = setting_text("jwks");
		bool		is_done;

		is_wanted = false;
		pthread_mutex_unlock(&lock);
		is_done = !jwks_is_url(url) || fetch_and_say(url);
		pthread_mutex_lock(&lock);
		/* One that was asked for meanwhile began too early for whoever asked. */
		is_behind = !is_done || is_wanted;
		wait_until(clock_ms() + (is_done ? setting_ms("jwks-refresh") : RETRY_MS));
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* ---- for the others */

/*
 * Has the set fetched now: the first time, and when the settings may have
 * changed.  The main thread calls.
 */
bool
jwks_fetch(JwksTaker *taker)
{
	bool		is_running;

	pthread_mutex_lock(&lock);
	is_wanted = is_behind = true;
	pthread_cond_signal(&called);
	take_set = taker;
	if (!has_thread)
		has_thread = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK &&
			pthread_create(&thread, NULL, run, NULL) == 0;
	is_running = has_thread;
	pthread_mutex_unlock(&lock);
	return is_running;
}

/*
 * A token names a key that there is not.  Whether it may be there soon, since a
 * fetch is due or the last one failed.
 */
bool
jwks_may_come(void)
{
	long long	now = clock_ms();
	bool		may_come;

	pthread_mutex_lock(&lock);
	if (has_thread && !is_behind && (asked_at == 0 || now - asked_at >= ASK_EVERY_MS))
	{
		asked_at = now;
		is_wanted = is_behind = true;
		pthread_cond_signal(&called);
	}
	may_come = is_behind;
	pthread_mutex_unlock(&lock);
	return may_come;
}

void
jwks_stop(void)
{
	pthread_mutex_lock(&lock);
	stopping = true;
	pthread_cond_signal(&called);
	pthread_mutex_unlock(&lock);
	if (has_thread)
		pthread_join(thread, NULL);
	has_thread = false;
}
