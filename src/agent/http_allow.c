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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent.h"
#include "http.h"
#include "network.h"

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

/* One entry of the list; false where it is none. */
static bool
parse_entry(char *text, Entry *entry)
{
	char	   *colon;

	if (network_parse(text, &entry->network))
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
is_public(const Address *address)
{
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
	{
		Network		network;

		if (network_parse(special[i], &network) && network_has(&network, address))
			return false;
	}
	return true;
}

bool
allow_address(const AllowList *list, const struct sockaddr *socket_address)
{
	Address		address;

	if (!address_take(socket_address, &address))
		return false;
	if (is_public(&address))
		return true;
	for (const Entry *entry = list->entries; entry != NULL; entry = entry->next)
		if (entry->host == NULL && network_has(&entry->network, &address))
			return true;
	return false;
}
