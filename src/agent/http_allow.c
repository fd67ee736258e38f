/*
 * http_allow.c
 *	  Which addresses api steps may reach.
 *
 * Whatever is not an ordinary public address is refused, and that is asked of
 * the address which a connection is about to be made to: neither a name that
 * resolves to another one the second time nor a redirect gets around it.  The
 * setting allow-hosts lets in what it names: hosts by the name in the URL, or
 * networks.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent.h"
#include "http.h"

/* An address of either family, that of IPv4 as IPv6 maps it. */
typedef struct Network
{
	unsigned char address[16];
	int			bits;
} Network;

typedef struct Entry
{
	struct Entry *next;
	char	   *host;			/* NULL: a network; with a dot first: whatever ends so */
	int			port;			/* 0: any */
	Network		network;
} Entry;

struct AllowList
{
	Entry	   *entries;
};

static const unsigned char mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool
parse_address(const char *text, unsigned char *address, bool *is_v4)
{
	struct in_addr v4;

	*is_v4 = inet_pton(AF_INET, text, &v4) == 1;
	if (!*is_v4)
		return inet_pton(AF_INET6, text, address) == 1;
	memcpy(address, mapped_prefix, sizeof(mapped_prefix));
	memcpy(address + sizeof(mapped_prefix), &v4, sizeof(v4));
	return true;
}

static bool
parse_network(const char *text, Network *network)
{
	char		buffer[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(text, '/');
	size_t		length = slash == NULL ? strlen(text) : (size_t) (slash - text);
	bool		is_v4;

	if (length >= sizeof(buffer))
		return false;
	memcpy(buffer, text, length);
	buffer[length] = '\0';
	if (!parse_address(buffer, network->address, &is_v4))
		return false;
	network->bits = 128;
	if (slash != NULL)
	{
		char	   *end;
		long		bits = strtol(slash + 1, &end, 10);

		if (end == slash + 1 || *end != '\0' || bits < 0 || bits > (is_v4 ? 32 : 128))
			return false;
		network->bits = (int) bits + (is_v4 ? 96 : 0);
	}
	return true;
}

static bool
is_within(const unsigned char *address, const Network *network)
{
	int			bytes = network->bits / 8;
	int			rest = network->bits % 8;

	return memcmp(address, network->address, (size_t) bytes) == 0 &&
		(rest == 0 || (address[bytes] ^ network->address[bytes]) >> (8 - rest) == 0);
}

/* One entry of the list; false where it is none. */
static bool
parse_entry(char *text, Entry *entry)
{
	char	   *colon;

	if (parse_network(text, &entry->network))
		return true;
	if (text[0] == '[')
	{
		/* [address]:port */
		char	   *end = strchr(text, ']');

		if (end == NULL)
			return false;
		colon = end[1] == ':' ? end + 1 : NULL;
		if (end[1] != '\0' && colon == NULL)
			return false;
		*end = '\0';
		text++;
	}
	else
	{
		colon = strchr(text, ':');
		if (strchr(text, '/') != NULL)
			return false;
	}
	if (colon != NULL)
	{
		char	   *end;
		long		port = strtol(colon + 1, &end, 10);

		if (end == colon + 1 || *end != '\0' || port < 1 || port > 65535)
			return false;
		entry->port = (int) port;
		*colon = '\0';
	}
	if (text[0] == '*')
		text++;
	if (*text == '\0' || strchr(text, '*') != NULL)
		return false;
	entry->host = text_copy(text);
	return true;
}

/*
 * A list with commas between; NULL where an entry is none, and which.
 */
AllowList *
allow_parse(const char *text, const char **bad)
{
	AllowList  *list = allocate(sizeof(AllowList));
	char	   *copy = text_copy(text == NULL ? "" : text);
	char	   *rest = copy;

	list->entries = NULL;
	*bad = NULL;
	for (char *word = strsep(&rest, ","); word != NULL && *bad == NULL; word = strsep(&rest, ","))
	{
		Entry	   *entry;

		word += strspn(word, " ");
		word[strcspn(word, " ")] = '\0';
		if (*word == '\0')
			continue;
		entry = allocate(sizeof(Entry));
		memset(entry, 0, sizeof(Entry));
		entry->next = list->entries;
		list->entries = entry;
		if (!parse_entry(word, entry))
			*bad = word;
	}
	if (*bad != NULL)
	{
		*bad = text_copy(*bad);
		allow_free(list);
		list = NULL;
	}
	free(copy);
	return list;
}

void
allow_free(AllowList *list)
{
	while (list != NULL && list->entries != NULL)
	{
		Entry	   *entry = list->entries;

		list->entries = entry->next;
		free(entry->host);
		free(entry);
	}
	free(list);
}

bool
allow_host(const AllowList *list, const char *host, int port)
{
	size_t		length = strlen(host);

	for (const Entry *entry = list->entries; entry != NULL; entry = entry->next)
	{
		size_t		own = entry->host == NULL ? 0 : strlen(entry->host);

		if (entry->host == NULL || (entry->port != 0 && entry->port != port))
			continue;
		if (entry->host[0] == '.' ? length > own && strcasecmp(host + length - own, entry->host) == 0 :
			strcasecmp(host, entry->host) == 0)
			return true;
	}
	return false;
}

/*
 * What IANA lists as not globally reachable, multicast, and what carries an
 * address of IPv4 in it, for that would be a way around.
 */
static const char *const special[] = {
	/* IPv4 */
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	/* IPv6: the unspecified and the loopback address, compatible ones */
	"::/96",
	/* translated, discarded, Teredo and other protocol assignments, documentation, 6to4 */
	"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	/* segment routing, unique local, link local, site local, multicast */
	"5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
};

static bool
is_public(const unsigned char *address)
{
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
	{
		Network		network;

		if (parse_network(special[i], &network) && is_within(address, &network))
			return false;
	}
	return true;
}

bool
allow_address(const AllowList *list, const struct sockaddr *address)
{
	unsigned char bytes[16];

	if (address->sa_family == AF_INET)
	{
		memcpy(bytes, mapped_prefix, sizeof(mapped_prefix));
		memcpy(bytes + sizeof(mapped_prefix), &((const struct sockaddr_in *) address)->sin_addr, 4);
	}
	else if (address->sa_family == AF_INET6)
		memcpy(bytes, &((const struct sockaddr_in6 *) address)->sin6_addr, sizeof(bytes));
	else
		return false;
	if (is_public(bytes))
		return true;
	for (const Entry *entry = list->entries; entry != NULL; entry = entry->next)
		if (entry->host == NULL && is_within(bytes, &entry->network))
			return true;
	return false;
}
