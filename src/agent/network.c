/*
 * network.c
 *	  Addresses and networks.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "network.h"

#define MAPPED_BITS		96		/* of the prefix that an address of IPv4 gets */

static void
map_v4(const struct in_addr *v4, Address *address)
{
	static const unsigned char prefix[12] = {[10] = 0xff, [11] = 0xff};

	memcpy(address->bytes, prefix, sizeof(prefix));
	memcpy(address->bytes + sizeof(prefix), v4, sizeof(*v4));
}

static bool
parse(const char *text, Address *address, bool *is_v4)
{
	struct in_addr v4;

	*is_v4 = inet_pton(AF_INET, text, &v4) == 1;
	if (!*is_v4)
		return inet_pton(AF_INET6, text, address->bytes) == 1;
	map_v4(&v4, address);
	return true;
}

bool
address_parse(const char *text, Address *address)
{
	bool		is_v4;

	return parse(text, address, &is_v4);
}

bool
address_take(const struct sockaddr *from, Address *address)
{
	if (from->sa_family == AF_INET)
		map_v4(&((const struct sockaddr_in *) from)->sin_addr, address);
	else if (from->sa_family == AF_INET6)
		memcpy(address->bytes, &((const struct sockaddr_in6 *) from)->sin6_addr, sizeof(address->bytes));
	else
		return false;
	return true;
}

bool
network_parse(const char *text, Network *network)
{
	char		buffer[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(text, '/');
	size_t		length = slash == NULL ? strlen(text) : (size_t) (slash - text);
	bool		is_v4;

	if (length >= sizeof(buffer))
		return false;
	memcpy(buffer, text, length);
	buffer[length] = '\0';
	if (!parse(buffer, &network->address, &is_v4))
		return false;
	network->bits = 128;
	if (slash != NULL)
	{
		char	   *end;
		long		bits = strtol(slash + 1, &end, 10);

		if (end == slash + 1 || *end != '\0' || bits < 0 || bits > (is_v4 ? 32 : 128))
			return false;
		network->bits = (int) bits + (is_v4 ? MAPPED_BITS : 0);
	}
	return true;
}

bool
network_has(const Network *network, const Address *address)
{
	int			bytes = network->bits / 8;
	int			rest = network->bits % 8;

	return memcmp(address->bytes, network->address.bytes, (size_t) bytes) == 0 &&
		(rest == 0 || (address->bytes[bytes] ^ network->address.bytes[bytes]) >> (8 - rest) == 0);
}
