/*
 * network.h
 *	  Addresses, and whether they are of a network: ADDRESS or ADDRESS/BITS.
 */
#ifndef TASKER_AGENT_NETWORK_H
#define TASKER_AGENT_NETWORK_H

#include <stdbool.h>
#include <sys/socket.h>

/* Of either family, that of IPv4 as IPv6 maps it. */
typedef struct Address
{
	unsigned char bytes[16];
} Address;

typedef struct Network
{
	Address		address;
	int			bits;
} Network;

/* False for what is none. */
extern bool address_parse(const char *text, Address *address);
extern bool address_take(const struct sockaddr *from, Address *address);
extern bool network_parse(const char *text, Network *network);

/* What is wrong with it; NULL: nothing. */
extern const char *network_problem(const char *text, Network *network);

extern bool network_has(const Network *network, const Address *address);

#endif							/* TASKER_AGENT_NETWORK_H */
