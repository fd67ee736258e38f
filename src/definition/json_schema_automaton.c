/*
 * json_schema_automaton.c
 *	  JSON Schema: a regular expression as an automaton that takes one look at
 *	  each character.
 *
 * First there is one whose states can be held several at once (Thompson's); then
 * each set of states that can be held at once becomes a state of its own.  What
 * would get too large is given up: PostgreSQL's regular expressions take it.
 */
#include "definition/json_schema_regex.h"

#include <stdlib.h>

#define MAX_NODES		800
#define MAX_STATES		250		/* a state's number is a byte */
#define MAX_CLASSES		60
#define MAX_BOUNDARIES	400
#define WORDS			((MAX_NODES + 63) / 64)

#define STATE_MATCHES	0x01	/* whatever comes behind */
#define STATE_IS_DEAD	0x02	/* nothing leads to a match any more */
#define STATE_ENDS_WELL	0x04	/* matches if nothing comes behind */

typedef enum NodeKind
{
	NODE_SET,
	NODE_SPLIT,
	NODE_BEGIN,
	NODE_END,
	NODE_MATCH
} NodeKind;

typedef struct Node
{
	NodeKind	kind;
	int			next;
	int			other;			/* split */
	const CharacterSet *set;
} Node;

typedef struct StateSet
{
	uint64_t	words[WORDS];
} StateSet;

typedef struct Maker
{
	void	   *arena;
	int64_t    *steps;
	bool		failed;
	int			node_count;
	Node		nodes[MAX_NODES];
	int			boundary_count;
	uint32_t	boundaries[MAX_BOUNDARIES];		/* where an interval of characters begins */
	uint8_t		classes[MAX_BOUNDARIES];
	uint32_t	samples[MAX_CLASSES];	/* a character of each class */
	int			class_count;
	int			state_count;
	StateSet	states[MAX_STATES];
} Maker;

struct Automaton
{
	int			class_count;
	int			boundary_count;
	uint8_t		ascii[128];		/* class of a character */
	uint32_t   *boundaries;
	uint8_t    *classes;
	uint8_t    *flags;
	uint8_t    *next;			/* by state and class */
};

/*
 * Nodes
 */

static int
add_node(Maker *maker, NodeKind kind, int next, int other)
{
	if (maker->node_count == MAX_NODES)
	{
		maker->failed = true;
		return 0;
	}
	maker->nodes[maker->node_count] = (Node) {kind, next, other, NULL};
	return maker->node_count++;
}

static int	build(Maker *maker, const RegexNode *regex, int next);

static int
build_repeat(Maker *maker, const RegexNode *regex, int next)
{
	int			entry = next;

	if (regex->most == UNBOUNDED)
	{
		entry = add_node(maker, NODE_SPLIT, next, next);
		if (!maker->failed)
		{
			int			inner = build(maker, regex->parts[0], entry);

			maker->nodes[entry].next = inner;
		}
	}
	else
		for (uint32_t i = regex->least; i < regex->most && !maker->failed; i++)
			entry = add_node(maker, NODE_SPLIT, build(maker, regex->parts[0], entry), next);
	for (uint32_t i = 0; i < regex->least && !maker->failed; i++)
		entry = build(maker, regex->parts[0], entry);
	return entry;
}

/* Nodes for the expression, from which it goes on to next; returns the first. */
static int
build(Maker *maker, const RegexNode *regex, int next)
{
	int			node;

	*maker->steps -= 1;
	if (maker->failed || *maker->steps <= 0)
	{
		maker->failed = true;
		return next;
	}
	switch (regex->kind)
	{
		case REGEX_SET:
			node = add_node(maker, NODE_SET, next, 0);
			maker->nodes[node].set = &regex->set;
			return node;
		case REGEX_BEGIN:
			return add_node(maker, NODE_BEGIN, next, 0);
		case REGEX_END:
			return add_node(maker, NODE_END, next, 0);
		case REGEX_REPEAT:
			return build_repeat(maker, regex, next);
		case REGEX_SEQUENCE:
			for (int i = regex->count - 1; i >= 0; i--)
				next = build(maker, regex->parts[i], next);
			return next;
		case REGEX_CHOICE:
			node = build(maker, regex->parts[0], next);
			for (int i = 1; i < regex->count && !maker->failed; i++)
				node = add_node(maker, NODE_SPLIT, node, build(maker, regex->parts[i], next));
			return node;
		default:
			maker->failed = true;
			return next;
	}
}

/*
 * Classes of characters that nothing tells apart
 */

static int
compare_characters(const void *a, const void *b)
{
	uint32_t	x = *(const uint32_t *) a;
	uint32_t	y = *(const uint32_t *) b;

	return x < y ? -1 : x > y;
}

static void
add_boundary(Maker *maker, uint32_t character)
{
	if (character > LAST_CHARACTER)
		return;
	if (maker->boundary_count == MAX_BOUNDARIES)
	{
		uint32_t	left = 1;

		/* Make room by leaving out what is there twice. */
		qsort(maker->boundaries, MAX_BOUNDARIES, sizeof(uint32_t), compare_characters);
		for (int i = 1; i < MAX_BOUNDARIES; i++)
			if (maker->boundaries[i] != maker->boundaries[i - 1])
				maker->boundaries[left++] = maker->boundaries[i];
		*maker->steps -= MAX_BOUNDARIES;
		maker->boundary_count = (int) left;
		if (left > MAX_BOUNDARIES / 2)
		{
			maker->failed = true;
			return;
		}
	}
	maker->boundaries[maker->boundary_count++] = character;
}

static bool
set_has(const CharacterSet *set, uint32_t character)
{
	int			low = 0;
	int			high = set->count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (character < set->ranges[middle].first)
			high = middle;
		else if (character > set->ranges[middle].last)
			low = middle + 1;
		else
			return true;
	}
	return false;
}

static bool
told_apart(const Maker *maker, uint32_t a, uint32_t b)
{
	for (int i = 0; i < maker->node_count; i++)
		if (maker->nodes[i].kind == NODE_SET &&
			set_has(maker->nodes[i].set, a) != set_has(maker->nodes[i].set, b))
			return true;
	return false;
}

static uint8_t
class_of(Maker *maker, uint32_t character)
{
	for (int i = 0; i < maker->class_count; i++)
	{
		*maker->steps -= maker->node_count;
		if (!told_apart(maker, maker->samples[i], character))
			return (uint8_t) i;
	}
	if (maker->class_count == MAX_CLASSES || *maker->steps <= 0)
	{
		maker->failed = true;
		return 0;
	}
	maker->samples[maker->class_count] = character;
	return (uint8_t) maker->class_count++;
}

static void
find_classes(Maker *maker)
{
	int			used = 0;

	add_boundary(maker, 0);
	for (int i = 0; i < maker->node_count; i++)
		for (int k = 0; maker->nodes[i].kind == NODE_SET && k < maker->nodes[i].set->count &&
			 !maker->failed; k++)
		{
			add_boundary(maker, maker->nodes[i].set->ranges[k].first);
			add_boundary(maker, maker->nodes[i].set->ranges[k].last + 1);
		}
	qsort(maker->boundaries, maker->boundary_count, sizeof(uint32_t), compare_characters);
	for (int i = 0; i < maker->boundary_count && !maker->failed; i++)
	{
		if (i > 0 && maker->boundaries[i] == maker->boundaries[i - 1])
			continue;
		maker->boundaries[used] = maker->boundaries[i];
		maker->classes[used++] = class_of(maker, maker->boundaries[i]);
	}
	maker->boundary_count = used;
}

/*
 * States
 */

static bool
has_node(const StateSet *set, int node)
{
	return set->words[node / 64] >> (node % 64) & 1;
}

/* Adds a node and all that can be reached from it without a character. */
static void
add_reachable(Maker *maker, StateSet *set, int node, bool at_begin, bool at_end)
{
	int			waiting[MAX_NODES];
	int			count = 0;

	if (has_node(set, node))
		return;
	set->words[node / 64] |= UINT64_C(1) << (node % 64);
	waiting[count++] = node;
	while (count > 0)
	{
		const Node *from = &maker->nodes[waiting[--count]];
		int			targets[2] = {from->next, from->other};
		int			target_count = 0;

		*maker->steps -= 1;
		if (from->kind == NODE_SPLIT)
			target_count = 2;
		else if ((from->kind == NODE_BEGIN && at_begin) || (from->kind == NODE_END && at_end))
			target_count = 1;
		for (int i = 0; i < target_count; i++)
			if (!has_node(set, targets[i]))
			{
				set->words[targets[i] / 64] |= UINT64_C(1) << (targets[i] % 64);
				waiting[count++] = targets[i];
			}
	}
}

/* Node 0 is the match. */
static uint8_t
flags_of(Maker *maker, const StateSet *set, bool at_begin)
{
	StateSet	at_end = {{0}};

	if (has_node(set, 0))
		return STATE_MATCHES | STATE_ENDS_WELL;
	for (int i = 0; i < maker->node_count; i++)
		if (has_node(set, i))
			add_reachable(maker, &at_end, i, at_begin, true);
	return has_node(&at_end, 0) ? STATE_ENDS_WELL : 0;
}

static int
find_state(Maker *maker, const StateSet *set)
{
	*maker->steps -= maker->state_count;
	for (int i = 1; i < maker->state_count; i++)
		if (memcmp(&maker->states[i], set, sizeof(StateSet)) == 0)
			return i;
	if (maker->state_count == MAX_STATES)
	{
		maker->failed = true;
		return 0;
	}
	maker->states[maker->state_count] = *set;
	return maker->state_count++;
}

/* Where a character leads; a match may also begin behind it. */
static int
move(Maker *maker, int state, uint32_t character, int first)
{
	StateSet	set = {{0}};

	for (int i = 0; i < maker->node_count; i++)
		if (has_node(&maker->states[state], i) && maker->nodes[i].kind == NODE_SET &&
			set_has(maker->nodes[i].set, character))
			add_reachable(maker, &set, maker->nodes[i].next, false, false);
	add_reachable(maker, &set, first, false, false);
	*maker->steps -= maker->node_count / 4;
	return find_state(maker, &set);
}

static void
find_dead(Automaton *automaton, int count)
{
	bool		alive[MAX_STATES];
	bool		changed = true;

	for (int i = 0; i < count; i++)
		alive[i] = automaton->flags[i] != 0;
	while (changed)
	{
		changed = false;
		for (int i = 0; i < count; i++)
			for (int c = 0; c < automaton->class_count && !alive[i]; c++)
				if (alive[automaton->next[i * automaton->class_count + c]])
					alive[i] = changed = true;
	}
	for (int i = 0; i < count; i++)
		if (!alive[i])
			automaton->flags[i] |= STATE_IS_DEAD;
}

/* State 0 is the one at the beginning, where ^ holds; none leads back to it. */
static Automaton *
make_states(Maker *maker, int first)
{
	Automaton  *automaton = host_alloc(maker->arena, sizeof(Automaton));
	uint8_t		next[MAX_STATES * MAX_CLASSES];
	uint8_t		flags[MAX_STATES];

	automaton->class_count = maker->class_count;
	memset(&maker->states[0], 0, sizeof(StateSet));
	add_reachable(maker, &maker->states[0], first, true, false);
	maker->state_count = 1;
	for (int i = 0; i < maker->state_count && !maker->failed; i++)
	{
		flags[i] = flags_of(maker, &maker->states[i], i == 0);
		for (int c = 0; c < maker->class_count && !maker->failed; c++)
			next[i * maker->class_count + c] = (flags[i] & STATE_MATCHES) ? (uint8_t) i :
				(uint8_t) move(maker, i, maker->samples[c], first);
		if (*maker->steps <= 0)
			maker->failed = true;
	}
	if (maker->failed)
		return NULL;
	automaton->flags = host_alloc(maker->arena, maker->state_count);
	memcpy(automaton->flags, flags, maker->state_count);
	automaton->next = host_alloc(maker->arena, (size_t) maker->state_count * maker->class_count);
	memcpy(automaton->next, next, (size_t) maker->state_count * maker->class_count);
	find_dead(automaton, maker->state_count);
	return automaton;
}

static int
find_interval(const uint32_t *boundaries, int count, uint32_t character)
{
	int			low = 0;
	int			high = count;

	while (high - low > 1)
	{
		int			middle = low + (high - low) / 2;

		if (boundaries[middle] <= character)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/*
 * NULL where it would get too large; steps are what may still be spent on it.
 * scratch is memory that the next one can use, too; NULL at first.
 */
Automaton *
automaton_make(void *arena, void **scratch, const RegexNode *root, int64_t *steps)
{
	Maker	   *maker = *scratch ? *scratch : host_alloc(arena, sizeof(Maker));
	Automaton  *automaton;
	int			first;

	*scratch = maker;
	maker->arena = arena;
	maker->steps = steps;
	maker->failed = *steps <= 0;
	maker->node_count = 0;
	maker->boundary_count = 0;
	maker->class_count = 0;
	add_node(maker, NODE_MATCH, 0, 0);
	first = build(maker, root, 0);
	if (!maker->failed)
		find_classes(maker);
	if (maker->failed)
		return NULL;
	automaton = make_states(maker, first);
	if (automaton == NULL)
		return NULL;
	automaton->boundary_count = maker->boundary_count;
	automaton->boundaries = host_alloc(arena, maker->boundary_count * sizeof(uint32_t));
	memcpy(automaton->boundaries, maker->boundaries, maker->boundary_count * sizeof(uint32_t));
	automaton->classes = host_alloc(arena, maker->boundary_count);
	memcpy(automaton->classes, maker->classes, maker->boundary_count);
	for (int c = 0; c < 128; c++)
		automaton->ascii[c] = maker->classes[find_interval(maker->boundaries,
														   maker->boundary_count, c)];
	return automaton;
}

bool
automaton_matches(const Automaton *automaton, const char *text, size_t length)
{
	const char *end = text + length;
	int			state = 0;
	int			class_count = automaton->class_count;

	while (text < end && !(automaton->flags[state] & (STATE_MATCHES | STATE_IS_DEAD)))
	{
		unsigned char c = (unsigned char) *text;
		int			class;

		if (c < 0x80)
		{
			class = automaton->ascii[c];
			text++;
		}
		else
			class = automaton->classes[find_interval(automaton->boundaries,
													 automaton->boundary_count,
													 decode_utf8(&text, end))];
		state = automaton->next[state * class_count + class];
	}
	return (automaton->flags[state] & STATE_MATCHES) ||
		(text == end && (automaton->flags[state] & STATE_ENDS_WELL));
}
