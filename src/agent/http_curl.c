/*
 * http_curl.c
 *	  Makes requests, many at a time, by libcurl.
 *
 * Redirects are followed here and not by the library: another host must not get
 * the headers and bodies that were meant for the first one.
 *
 * What the library waits for is in an epoll set: what there is to do costs the
 * same whether ten or a thousand other requests are under way.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <curl/curl.h>

#include "agent.h"
#include "http.h"

#define CONNECT_TIMEOUT_MS	10000
#define MAX_HEAD			(256 * 1024)

/* A request as the library makes it: one hop of it at a time. */
typedef struct Transfer
{
	Request    *request;
	CURL	   *easy;
	struct curl_slist *headers;
	CURLU	   *url;
	const char *method;			/* of this hop */
	bool		with_body;
	bool		strange;		/* not at the host that was asked for */
	bool		host_allowed;
	bool		refused;		/* an address that may not be reached */
	bool		too_large;
	int			redirects;
} Transfer;

static CURLM *multi;
static Limits limits;
static struct curl_slist *connect_to;
static int	sockets = -1;		/* epoll, of those of requests */
static int	waker = -1;
static long long due = -1;		/* when the library wants to be called; -1: not by itself */

/* The library tells what it waits for at a socket. */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct epoll_event event = {.data.fd = fd};

	(void) easy;
	(void) arg;
	(void) socket_arg;
	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(sockets, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(sockets, EPOLL_CTL_MOD, fd, &event) == 0)
		return 0;
	return errno == ENOENT && epoll_ctl(sockets, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -1;
}

static int
set_due(CURLM *handle, long ms, void *arg)
{
	(void) handle;
	(void) arg;
	due = ms < 0 ? -1 : clock_ms() + ms;
	return 0;
}

bool
transfers_start(void)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return false;
	multi = curl_multi_init();
	sockets = epoll_create1(EPOLL_CLOEXEC);
	waker = waker_open();
	if (multi == NULL || sockets < 0 || waker < 0)
		return false;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_due);
	return true;
}

void
transfers_stop(void)
{
	curl_multi_cleanup(multi);
	close(sockets);
	close(waker);
	allow_free(limits.allowed);
	curl_slist_free_all(connect_to);
}

/* The elements of a list with commas between. */
static struct curl_slist *
split(const char *list)
{
	char	   *copy = text_copy(list == NULL ? "" : list);
	char	   *rest = copy;
	struct curl_slist *words = NULL;

	for (char *word = strsep(&rest, ","); word != NULL; word = strsep(&rest, ","))
		if (*word != '\0')
			words = curl_slist_append(words, word);
	free(copy);
	return words;
}

/*
 * Takes over what is in it.  Requests under way go on as they began, but for what
 * they hold of the old.
 */
void
transfers_configure(const Limits *new_limits)
{
	allow_free(limits.allowed);
	limits = *new_limits;
	/* Those under way have the old list, which is small. */
	connect_to = split(limits.connect_to);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) limits.max_requests * 2);
	curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long) limits.per_host);
}

/* The address is known now, whatever the name was. */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	Transfer   *transfer = arg;

	if (purpose != CURLSOCKTYPE_IPCXN ||
		(!transfer->host_allowed && !allow_address(limits.allowed, &address->addr)))
	{
		transfer->refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t
take_body(char *data, size_t size, size_t count, void *arg)
{
	Transfer   *transfer = arg;
	Request    *request = transfer->request;
	size_t		length = size * count;

	if ((long long) (request->answer.length + length) > request->max_response)
	{
		transfer->too_large = true;
		return 0;
	}
	bytes_add(&request->answer, data, length);
	return length;
}

static size_t
take_head(char *data, size_t size, size_t count, void *arg)
{
	Transfer   *transfer = arg;
	Request    *request = transfer->request;
	size_t		length = size * count;

	/* An interim answer goes before. */
	if (length >= 5 && memcmp(data, "HTTP/", 5) == 0)
		request->head.length = 0;
	if (request->head.length + length > MAX_HEAD)
	{
		transfer->too_large = true;
		return 0;
	}
	bytes_add(&request->head, data, length);
	return length;
}

static void
add_header(Transfer *transfer, const char *name, const char *value)
{
	char	   *line = *value == '\0' ? text_format("%s;", name) : text_format("%s: %s", name, value);

	transfer->headers = curl_slist_append(transfer->headers, line);
	free(line);
}

/* Whether a header may go to a host that it was not meant for. */
static bool
is_harmless(const char *name)
{
	static const char *const names[] = {"accept", "idempotency-key", "traceparent", "user-agent"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(name, names[i]) == 0)
			return true;
	return false;
}

static bool
has_header(const Request *request, const char *name)
{
	for (int i = 0; i < request->header_count; i++)
		if (strcasecmp(request->headers[i].name, name) == 0)
			return true;
	return false;
}

static void
set_headers(Transfer *transfer)
{
	Request    *request = transfer->request;

	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	for (int i = 0; i < request->header_count; i++)
	{
		const Header *header = &request->headers[i];

		if (transfer->strange && !is_harmless(header->name))
			continue;
		if (!transfer->with_body && strcasecmp(header->name, "content-type") == 0)
			continue;
		add_header(transfer, header->name, header->value);
	}
	/* What the library would add by itself. */
	if (transfer->with_body && !has_header(request, "content-type"))
		transfer->headers = curl_slist_append(transfer->headers, "Content-Type:");
	if (!has_header(request, "accept"))
		transfer->headers = curl_slist_append(transfer->headers, "Accept:");
	transfer->headers = curl_slist_append(transfer->headers, "Expect:");
	curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers);
	if (!has_header(request, "user-agent"))
		curl_easy_setopt(transfer->easy, CURLOPT_USERAGENT, "tasker-agent/" TASKER_VERSION);
}

static void
set_method(Transfer *transfer)
{
	CURL	   *easy = transfer->easy;
	Request    *request = transfer->request;

	if (strcmp(transfer->method, "HEAD") == 0)
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else if (transfer->with_body || strcmp(transfer->method, "POST") == 0)
	{
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) (transfer->with_body ? request->body_length : 0));
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->with_body ? request->body : "");
	}
	else
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, transfer->method);
}

static void
set_tls(Transfer *transfer)
{
	Request    *request = transfer->request;
	bool		verify = request->tls_verify || transfer->strange;

	curl_easy_setopt(transfer->easy, CURLOPT_SSL_VERIFYPEER, verify ? 1L : 0L);
	curl_easy_setopt(transfer->easy, CURLOPT_SSL_VERIFYHOST, verify ? 2L : 0L);
	if (request->tls_ca != NULL && !transfer->strange)
	{
		struct curl_blob blob = {(void *) (uintptr_t) request->tls_ca, strlen(request->tls_ca), CURL_BLOB_NOCOPY};

		curl_easy_setopt(transfer->easy, CURLOPT_CAINFO_BLOB, &blob);
	}
	else if (limits.tls_ca != NULL)
		curl_easy_setopt(transfer->easy, CURLOPT_CAINFO, limits.tls_ca);
}

/* A part of the URL, to be freed by curl_free(); NULL: it has none. */
static char *
url_part(CURLU *url, CURLUPart part)
{
	char	   *text = NULL;

	(void) curl_url_get(url, part, &text, part == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0);
	return text;
}

static void
look_up_host(Transfer *transfer)
{
	char	   *host = url_part(transfer->url, CURLUPART_HOST);
	char	   *port = url_part(transfer->url, CURLUPART_PORT);
	size_t		length = host == NULL ? 0 : strlen(host);

	transfer->host_allowed = false;
	if (length > 2 && host[0] == '[')
	{
		host[length - 1] = '\0';
		transfer->host_allowed = allow_host(limits.allowed, host + 1, port == NULL ? 0 : atoi(port));
	}
	else if (length > 0)
		transfer->host_allowed = allow_host(limits.allowed, host, port == NULL ? 0 : atoi(port));
	curl_free(host);
	curl_free(port);
}

static long
time_left(const Request *request)
{
	long long	left = request->started_at + request->timeout_ms - clock_ms();

	return left > 1 ? (long) left : 1;
}

/* The request, or its next hop, with the URL that the transfer has by now. */
static void
begin_hop(Transfer *transfer)
{
	CURL	   *easy = transfer->easy;
	Request    *request = transfer->request;
	long		left = time_left(request);

	curl_easy_reset(easy);
	request->head.length = request->answer.length = 0;
	transfer->refused = transfer->too_large = false;
	look_up_host(transfer);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	curl_easy_setopt(easy, CURLOPT_CURLU, transfer->url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_CONNECT_TO, connect_to);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, left);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, left < CONNECT_TIMEOUT_MS ? left : CONNECT_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) request->max_response);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_head);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
	set_method(transfer);
	set_headers(transfer);
	set_tls(transfer);
	curl_multi_add_handle(multi, easy);
}

/* Those that are done, until they are taken. */
static Request *first_done = NULL;
static Request **last_done = &first_done;

static void
fail(Request *request, const char *error_class, const char *message)
{
	request->error_class = error_class;
	request->message = message;
	request->status = 0;
	request->head.length = request->answer.length = 0;
}

static void
free_transfer(Transfer *transfer)
{
	transfer->request->transfer = NULL;
	curl_easy_cleanup(transfer->easy);
	curl_slist_free_all(transfer->headers);
	curl_url_cleanup(transfer->url);
	free(transfer);
}

/* The request stays in its list, beside being done, until it is taken. */
static void
finish(Transfer *transfer)
{
	Request    *request = transfer->request;

	request->duration_ms = (long) (clock_ms() - request->started_at);
	free_transfer(transfer);
	request->next_done = NULL;
	*last_done = request;
	last_done = &request->next_done;
}

static void
take_done(Request **link)
{
	Request    *request = *link;

	*link = request->next_done;
	if (*link == NULL)
		last_done = link;
}

void
transfers_add(Request *request)
{
	Transfer   *transfer = allocate(sizeof(Transfer));

	memset(transfer, 0, sizeof(Transfer));
	transfer->request = request;
	transfer->easy = curl_easy_init();
	transfer->url = curl_url();
	transfer->method = request->method;
	transfer->with_body = request->body != NULL;
	request->transfer = transfer;
	request->started_at = clock_ms();
	if (transfer->easy == NULL || transfer->url == NULL)
		fail(request, "other", "could not be asked: out of memory");
	else if (!request->tls_verify && !limits.insecure)
		fail(request, "insecure", "is not to prove who it is, which the agent does not allow (--allow-insecure)");
	else if (curl_url_set(transfer->url, CURLUPART_URL, request->url, 0) != CURLUE_OK)
		fail(request, "bad_url", "has a URL that can't be one");
	else
	{
		begin_hop(transfer);
		return;
	}
	finish(transfer);
}

/* Stops a request that nobody waits for any more; it is freed. */
void
transfers_drop(Request *request)
{
	Transfer   *transfer = request->transfer;

	if (transfer != NULL)
	{
		curl_multi_remove_handle(multi, transfer->easy);
		free_transfer(transfer);
	}
	for (Request **link = &first_done; *link != NULL; link = &(*link)->next_done)
	{
		if (*link != request)
			continue;
		take_done(link);
		break;
	}
	request_free(request);
}

static bool
same_part(CURLU *a, CURLU *b, CURLUPart part)
{
	char	   *left = url_part(a, part);
	char	   *right = url_part(b, part);
	bool		same = left != NULL && right != NULL && strcasecmp(left, right) == 0;

	curl_free(left);
	curl_free(right);
	return same;
}

static bool
is_scheme(CURLU *url, const char *scheme)
{
	char	   *own = url_part(url, CURLUPART_SCHEME);
	bool		is = own != NULL && strcasecmp(own, scheme) == 0;

	curl_free(own);
	return is;
}

/* Name and password stay where the host does. */
static void
keep_user(CURLU *from, CURLU *to)
{
	static const CURLUPart parts[] = {CURLUPART_USER, CURLUPART_PASSWORD};

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
	{
		char	   *text = url_part(from, parts[i]);

		if (text != NULL)
			(void) curl_url_set(to, parts[i], text, 0);
		curl_free(text);
	}
}

/* What follows a redirect asks for; as browsers do. */
static void
change_method(Transfer *transfer, long status)
{
	bool		to_get = status == 303 ? strcmp(transfer->method, "HEAD") != 0 :
		status < 303 && strcmp(transfer->method, "POST") == 0;

	if (!to_get)
		return;
	transfer->method = "GET";
	transfer->with_body = false;
}

/* Whether the answer is a redirect that was followed, or could not be. */
static bool
redirect(Transfer *transfer, long status)
{
	Request    *request = transfer->request;
	struct curl_header *location;
	CURLU	   *next;
	bool		same_host;

	if (!(status >= 301 && status <= 303) && status != 307 && status != 308)
		return false;
	if (request->max_redirects == 0 ||
		curl_easy_header(transfer->easy, "Location", 0, CURLH_HEADER, -1, &location) != CURLHE_OK)
		return false;
	next = curl_url_dup(transfer->url);
	if (transfer->redirects++ >= request->max_redirects)
		fail(request, "bad_redirect", "redirects too often");
	else if (next == NULL || curl_url_set(next, CURLUPART_URL, location->value, 0) != CURLUE_OK ||
			 !(is_scheme(next, "http") || is_scheme(next, "https")))
		fail(request, "bad_redirect", "redirects to what is no URL of http or https");
	else if (is_scheme(transfer->url, "https") && is_scheme(next, "http"))
		fail(request, "bad_redirect", "redirects from https to http");
	else
	{
		change_method(transfer, status);
		same_host = same_part(transfer->url, next, CURLUPART_SCHEME) &&
			same_part(transfer->url, next, CURLUPART_HOST) &&
			same_part(transfer->url, next, CURLUPART_PORT);
		transfer->strange = transfer->strange || !same_host;
		if (transfer->with_body && transfer->strange)
			fail(request, "bad_redirect", "redirects to another host, which must not get the body");
		else if (same_host)
			keep_user(transfer->url, next);
	}
	if (request->error_class != NULL)
	{
		curl_url_cleanup(next);
		return false;
	}
	curl_url_cleanup(transfer->url);
	transfer->url = next;
	begin_hop(transfer);
	return true;
}

/* Why there is no answer. */
static void
note_failure(Transfer *transfer, CURLcode code)
{
	Request    *request = transfer->request;
	const char *message = curl_easy_strerror(code);

	if (transfer->too_large || code == CURLE_FILESIZE_EXCEEDED)
	{
		fail(request, "too_large", "answers with more than is allowed (max_response)");
		return;
	}
	if (transfer->refused && code == CURLE_COULDNT_CONNECT)
	{
		fail(request, "refused_address", "has no public address, and allow-hosts of the agent does not name it");
		return;
	}
	switch (code)
	{
		case CURLE_COULDNT_RESOLVE_HOST:
			fail(request, "dns", message);
			break;
		case CURLE_COULDNT_CONNECT:
			fail(request, "connect", message);
			break;
		case CURLE_OPERATION_TIMEDOUT:
			fail(request, "timeout", message);
			break;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
			fail(request, "tls", message);
			break;
		case CURLE_UNSUPPORTED_PROTOCOL:
			/* That of the URL is known by now. */
			fail(request, "other", "answers with what is no HTTP");
			break;
		case CURLE_URL_MALFORMAT:
			fail(request, "bad_url", message);
			break;
		case CURLE_GOT_NOTHING:
		case CURLE_PARTIAL_FILE:
		case CURLE_RECV_ERROR:
		case CURLE_SEND_ERROR:
		case CURLE_HTTP2:
		case CURLE_HTTP2_STREAM:
			fail(request, "reset", message);
			break;
		default:
			fail(request, "other", message);
			break;
	}
}

static void
take_answer(Transfer *transfer, long status)
{
	Request    *request = transfer->request;
	curl_off_t	retry_after = 0;

	request->status = (int) status;
	if (curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &retry_after) == CURLE_OK)
		request->retry_after = retry_after > 86400 ? 86400 : (long) retry_after;
}

/* Has the library do what has become possible. */
static void
act(void)
{
	struct epoll_event events[256];
	int			count = epoll_wait(sockets, events, sizeof(events) / sizeof(events[0]), 0);
	int			running;

	for (int i = 0; i < count; i++)
		curl_multi_socket_action(multi, events[i].data.fd,
								 (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
								 (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
								 (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0),
								 &running);
	if (due >= 0 && due <= clock_ms())
	{
		due = -1;
		curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

void
transfers_move(void)
{
	int			left;
	CURLMsg    *message;

	act();
	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		CURLcode	code = message->data.result;
		Transfer   *transfer;
		long		status = 0;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer);
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		curl_multi_remove_handle(multi, easy);
		if (code != CURLE_OK)
			note_failure(transfer, code);
		else if (redirect(transfer, status))
			continue;
		else if (transfer->request->error_class == NULL)
			take_answer(transfer, status);
		finish(transfer);
	}
}

Request *
transfers_finished(void)
{
	Request    *request = first_done;

	if (request != NULL)
		take_done(&first_done);
	return request;
}

void
transfers_wait(const Waiting *others, int count, long timeout_ms)
{
	struct pollfd fds[8] = {{.fd = sockets, .events = POLLIN}, {.fd = waker, .events = POLLIN}};
	long long	left = due - clock_ms();

	for (int i = 0; i < count; i++)
	{
		fds[i + 2].fd = others[i].fd;
		fds[i + 2].events = POLLIN | (others[i].for_write ? POLLOUT : 0);
	}
	if (due >= 0 && left < timeout_ms)
		timeout_ms = left > 0 ? (long) left : 0;
	(void) poll(fds, (nfds_t) count + 2, (int) timeout_ms);
	waker_clear(waker);
}

void
transfers_wake(void)
{
	waker_call(waker);
}
