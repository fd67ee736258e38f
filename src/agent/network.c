/*
 * network.c
 *	  Addresses and networks.
 */
#include <arpa/inet.h>
#include <ctype.h>
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

/* The number behind the slash; -1: there is none up to most. */
static int
parse_bits(const char *text, int most)
{
	char	   *end;
	long		bits = strtol(text, &end, 10);

	return isdigit((unsigned char) *text) && *end == '\0' && bits <= most ? (int) bits : -1;
}

/* Whether all bits behind the first ones are zero. */
static bool
is_base(const Network *network)
{
	for (int bit = network->bits; bit < 128; bit++)
		if (network->address.bytes[bit / 8] & (0x80 >> bit % 8))
			return false;
	return true;
}

const char *
network_problem(const char *text, Network *network)
{
	char		buffer[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(text, '/');
	size_t		length = slash == NULL ? strlen(text) : (size_t) (slash - text);
	bool		is_v4;
	int			bits;

	if (length == 0)
		return "has no address";
	if (length < sizeof(buffer))
	{
		memcpy(buffer, text, length);
		buffer[length] = '\0';
	}
	if (length >= sizeof(buffer) || !parse(buffer, &network->address, &is_v4))
		return "has no address that is one of IPv4 or IPv6";
	network->bits = 128;
	if (slash == NULL)
		return NULL;
	bits = parse_bits(slash + 1, is_v4 ? 32 : 128);
	if (bits < 0)
		return is_v4 ? "has no number from 0 to 32 behind the slash" : "has no number from 0 to 128 behind the slash";
	network->bits = bits + (is_v4 ? MAPPED_BITS : 0);
	/* Whoever wrote that meant something narrower. */
	return is_base(network) ? NULL : "has an address that goes on behind the bits of its network";
}

bool
network_parse(const char *text, Network *network)
{
	return network_problem(text, network) == NULL;
}

bool
network_has(const Network *network, const Address *address)
{
	int			bytes = network->bits / 8;
	int			rest = network->bits % 8;

	return memcmp(address->bytes, network->address.bytes, (size_t) bytes) == 0 &&
		(rest == 0 || (address->bytes[bytes] ^ network->address.bytes[bytes]) >> (8 - rest) == 0);
}
