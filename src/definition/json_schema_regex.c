/*
 * json_schema_regex.c
 *	  JSON Schema: reads a regular expression of ECMA-262, with its flag u, and
 *	  writes it as one of PostgreSQL's.
 *
 * Left out, with a reason given: references to groups, which can take for ever;
 * and properties of characters (\p), for which there are no tables.  Kinder than
 * the standard: punctuation may be escaped whether it must or not, and { } ] mean
 * themselves where they can mean nothing else.
 */
#include "definition/json_schema_regex.h"

#include <stdlib.h>

#define MAX_GROUPS_DEEP		200
#define SERVER_COUNT		255		/* the most that PostgreSQL takes in {} */
#define SERVER_PIECES		8		/* of so many pieces a larger count is made */
#define LARGEST				65536	/* bytes of what is written */

typedef struct Reader
{
	void	   *arena;
	bool		utf8;
	const char *at;
	const char *end;
	const char *reason;
	bool		looks;
	int			depth;
} Reader;

static RegexNode *read_choice(Reader *reader);

static void *
fail(Reader *reader, const char *reason)
{
	if (reader->reason == NULL)
		reader->reason = reason;
	reader->at = reader->end;
	return NULL;
}

static RegexNode *
new_node(Reader *reader, RegexKind kind)
{
	RegexNode  *node = host_alloc(reader->arena, sizeof(RegexNode));

	memset(node, 0, sizeof(RegexNode));
	node->kind = kind;
	return node;
}

static void
add_part(Reader *reader, RegexNode *node, RegexNode *part)
{
	if (node->count == node->size)
	{
		RegexNode **old = node->parts;

		node->size = node->size ? node->size * 2 : 4;
		node->parts = host_alloc(reader->arena, node->size * sizeof(RegexNode *));
		if (node->count > 0)
			memcpy(node->parts, old, node->count * sizeof(RegexNode *));
	}
	node->parts[node->count++] = part;
}

/*
 * Sets of characters
 */

static void
add_range(void *arena, CharacterSet *set, uint32_t first, uint32_t last)
{
	if (set->count == set->size)
	{
		Range	   *old = set->ranges;

		set->size = set->size ? set->size * 2 : 4;
		set->ranges = host_alloc(arena, set->size * sizeof(Range));
		if (set->count > 0)
			memcpy(set->ranges, old, set->count * sizeof(Range));
	}
	set->ranges[set->count].first = first;
	set->ranges[set->count].last = last;
	set->count++;
}

static int
compare_ranges(const void *a, const void *b)
{
	const Range *x = a;
	const Range *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Sorts the ranges and joins those that touch. */
static void
settle(CharacterSet *set)
{
	int			used = 0;

	if (set->count == 0)
		return;
	qsort(set->ranges, set->count, sizeof(Range), compare_ranges);
	for (int i = 1; i < set->count; i++)
	{
		if (set->ranges[i].first <= set->ranges[used].last + 1)
		{
			if (set->ranges[i].last > set->ranges[used].last)
				set->ranges[used].last = set->ranges[i].last;
		}
		else
			set->ranges[++used] = set->ranges[i];
	}
	set->count = used + 1;
}

/* Adds what is not in the other set, which is settled. */
static void
add_complement(void *arena, CharacterSet *set, const CharacterSet *other)
{
	uint32_t	next = 0;

	for (int i = 0; i < other->count; i++)
	{
		if (other->ranges[i].first > next)
			add_range(arena, set, next, other->ranges[i].first - 1);
		next = other->ranges[i].last + 1;
	}
	if (next <= LAST_CHARACTER)
		add_range(arena, set, next, LAST_CHARACTER);
}

static const Range digits[] = {{'0', '9'}};
static const Range word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const Range space[] = {{'\t', '\r'}, {' ', ' '}, {0xA0, 0xA0}, {0x1680, 0x1680},
{0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000},
{0xFEFF, 0xFEFF}};
static const Range line_ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

/* Without UTF-8 there is no telling what a character's number is. */
static void
add_known(Reader *reader, CharacterSet *set, const Range *ranges, int count, bool complement)
{
	CharacterSet known = {0};

	for (int i = 0; i < count; i++)
		if (reader->utf8 || ranges[i].last < 0x80)
			add_range(reader->arena, &known, ranges[i].first, ranges[i].last);
	if (complement)
		add_complement(reader->arena, set, &known);
	else
		for (int i = 0; i < known.count; i++)
			add_range(reader->arena, set, known.ranges[i].first, known.ranges[i].last);
}

#define ADD_KNOWN(reader, set, ranges, complement) \
	add_known(reader, set, ranges, (int) (sizeof(ranges) / sizeof((ranges)[0])), complement)

/* The sets that a letter behind a backslash means. */
static bool
add_class(Reader *reader, CharacterSet *set, char letter)
{
	switch (letter)
	{
		case 'd':
		case 'D':
			ADD_KNOWN(reader, set, digits, letter == 'D');
			return true;
		case 'w':
		case 'W':
			ADD_KNOWN(reader, set, word, letter == 'W');
			return true;
		case 's':
		case 'S':
			ADD_KNOWN(reader, set, space, letter == 'S');
			return true;
		default:
			return false;
	}
}

static RegexNode *
set_of_character(Reader *reader, uint32_t character)
{
	RegexNode  *node = new_node(reader, REGEX_SET);

	if (character >= 0x80 && !reader->utf8)
		return fail(reader, "characters beyond ASCII need a database in UTF-8");
	add_range(reader->arena, &node->set, character, character);
	return node;
}

/*
 * Escapes
 */

static bool
read_hex(Reader *reader, int digits_wanted, uint32_t *value)
{
	*value = 0;
	for (int i = 0; i < digits_wanted; i++, reader->at++)
	{
		char		c = reader->at < reader->end ? *reader->at : '\0';

		if (c >= '0' && c <= '9')
			*value = *value * 16 + (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			*value = *value * 16 + ((c | 0x20) - 'a' + 10);
		else
		{
			fail(reader, "invalid escape \\ sequence");
			return false;
		}
	}
	return true;
}

/* \u1234, \u{12345}, or a pair of surrogates */
static bool
read_unicode(Reader *reader, uint32_t *value)
{
	uint32_t	low;

	if (reader->at < reader->end && *reader->at == '{')
	{
		int			count = 0;

		reader->at++;
		*value = 0;
		while (reader->at < reader->end && *reader->at != '}' && *value <= LAST_CHARACTER)
		{
			uint32_t	digit;

			if (!read_hex(reader, 1, &digit))
				return false;
			*value = *value * 16 + digit;
			count++;
		}
		if (count == 0 || reader->at == reader->end || *value > LAST_CHARACTER)
		{
			fail(reader, "invalid escape \\ sequence");
			return false;
		}
		reader->at++;
		return true;
	}
	if (!read_hex(reader, 4, value))
		return false;
	if (*value >= 0xD800 && *value <= 0xDBFF && reader->end - reader->at >= 6 &&
		reader->at[0] == '\\' && reader->at[1] == 'u' && (reader->at[2] | 0x20) == 'd')
	{
		reader->at += 2;
		if (!read_hex(reader, 4, &low))
			return false;
		if (low < 0xDC00)
			fail(reader, "invalid escape \\ sequence");
		*value = 0x10000 + ((*value - 0xD800) << 10) + ((low - 0xDC00) & 0x3FF);
	}
	return true;
}

/* The character that an escape means; at is behind the backslash. */
static bool
read_escaped(Reader *reader, uint32_t *value)
{
	static const char controls[] = "t\tn\nv\vf\fr\r";
	char		c;

	if (reader->at == reader->end)
	{
		fail(reader, "invalid escape \\ sequence");
		return false;
	}
	c = *reader->at++;
	for (int i = 0; controls[i] != '\0'; i += 2)
		if (controls[i] == c)
		{
			*value = controls[i + 1];
			return true;
		}
	*value = (unsigned char) c;
	if (c == 'x')
		return read_hex(reader, 2, value);
	if (c == 'u')
		return read_unicode(reader, value);
	if (c == 'c' && reader->at < reader->end && (*reader->at | 0x20) >= 'a' &&
		(*reader->at | 0x20) <= 'z')
	{
		*value = *reader->at++ & 0x1F;
		return true;
	}
	if (c == '0' && !(reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9'))
	{
		*value = 0;
		return true;
	}
	if ((c >= '0' && c <= '9') || c == 'k')
	{
		fail(reader, "references to groups are not supported");
		return false;
	}
	if (c == 'p' || c == 'P')
	{
		fail(reader, "properties of characters (\\p) are not supported");
		return false;
	}
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char) c >= 0x80)
	{
		fail(reader, "invalid escape \\ sequence");
		return false;
	}
	return true;
}

/*
 * Brackets
 */

/* A character of brackets, or a set, which is added. */
static bool
read_bracket_atom(Reader *reader, CharacterSet *set, uint32_t *character, bool *is_set)
{
	*is_set = false;
	if (*reader->at != '\\')
	{
		*character = reader->utf8 ? decode_utf8(&reader->at, reader->end) :
			(unsigned char) *reader->at++;
		return true;
	}
	reader->at++;
	if (reader->at < reader->end && add_class(reader, set, *reader->at))
	{
		reader->at++;
		*is_set = true;
		return true;
	}
	if (reader->at < reader->end && *reader->at == 'b')
	{
		reader->at++;
		*character = '\b';
		return true;
	}
	return read_escaped(reader, character);
}

static RegexNode *
read_brackets(Reader *reader)
{
	RegexNode  *node = new_node(reader, REGEX_SET);
	bool		complement = reader->at < reader->end && *reader->at == '^';

	reader->at += complement;
	while (reader->at < reader->end && *reader->at != ']')
	{
		uint32_t	first;
		uint32_t	last;
		bool		first_is_set;
		bool		last_is_set = false;

		if (!read_bracket_atom(reader, &node->set, &first, &first_is_set))
			return NULL;
		last = first;
		if (reader->end - reader->at >= 2 && reader->at[0] == '-' && reader->at[1] != ']')
		{
			if (first_is_set)
				return fail(reader, "invalid character range");
			reader->at++;
			if (!read_bracket_atom(reader, &node->set, &last, &last_is_set))
				return NULL;
			if (last_is_set || last < first)
				return fail(reader, "invalid character range");
		}
		if (first_is_set)
			continue;
		if (last >= 0x80 && !reader->utf8)
			return fail(reader, "characters beyond ASCII need a database in UTF-8");
		add_range(reader->arena, &node->set, first, last);
	}
	if (reader->at == reader->end)
		return fail(reader, "brackets [] not balanced");
	reader->at++;
	settle(&node->set);
	if (complement)
	{
		CharacterSet inner = node->set;

		memset(&node->set, 0, sizeof(CharacterSet));
		add_complement(reader->arena, &node->set, &inner);
	}
	return node;
}

/*
 * Terms
 */

/* (?<name> */
static bool
skip_group_name(Reader *reader)
{
	const char *begin = reader->at;

	while (reader->at < reader->end && *reader->at != '>' &&
		   ((unsigned char) *reader->at >= 0x80 || strchr("()[]{}<|?*+.^$\\ ", *reader->at) == NULL))
		reader->at++;
	if (reader->at == begin || reader->at == reader->end || *reader->at != '>')
	{
		fail(reader, "invalid group");
		return false;
	}
	reader->at++;
	return true;
}

/* at is behind the opening parenthesis. */
static RegexNode *
read_group(Reader *reader)
{
	RegexNode  *look = NULL;
	RegexNode  *inner;

	if (reader->depth >= MAX_GROUPS_DEEP)
		return fail(reader, "too many groups within each other");
	if (reader->at < reader->end && *reader->at == '?')
	{
		char		c = reader->end - reader->at > 1 ? reader->at[1] : '\0';
		char		d = reader->end - reader->at > 2 ? reader->at[2] : '\0';
		bool		behind = c == '<' && (d == '=' || d == '!');

		reader->at += behind ? 3 : 2;
		if (c == '=' || c == '!' || behind)
		{
			look = new_node(reader, REGEX_LOOK);
			look->behind = behind;
			look->negative = (behind ? d : c) == '!';
			reader->looks = true;
		}
		else if (c == '<')
		{
			if (!skip_group_name(reader))
				return NULL;
		}
		else if (c != ':')
			return fail(reader, "invalid group");
	}
	reader->depth++;
	inner = read_choice(reader);
	reader->depth--;
	if (inner == NULL)
		return NULL;
	if (reader->at == reader->end)
		return fail(reader, "parentheses () not balanced");
	reader->at++;
	if (look == NULL)
		return inner;
	add_part(reader, look, inner);
	return look;
}

static RegexNode *
read_backslash(Reader *reader)
{
	char		c = reader->at < reader->end ? *reader->at : '\0';
	RegexNode  *node;
	uint32_t	character;

	if (c == 'b' || c == 'B')
	{
		reader->at++;
		reader->looks = true;
		node = new_node(reader, REGEX_BOUNDARY);
		node->negative = c == 'B';
		return node;
	}
	node = new_node(reader, REGEX_SET);
	if (add_class(reader, &node->set, c))
	{
		reader->at++;
		return node;
	}
	return read_escaped(reader, &character) ? set_of_character(reader, character) : NULL;
}

static bool
read_count(Reader *reader, uint32_t *count)
{
	const char *begin = reader->at;

	*count = 0;
	for (; reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9'; reader->at++)
		if (*count < 100000000)
			*count = *count * 10 + (*reader->at - '0');
	return reader->at > begin;
}

/* {2}, {2,} or {2,3}; where it is none of these, at stays. */
static bool
read_counts(Reader *reader, uint32_t *least, uint32_t *most)
{
	const char *begin = reader->at;

	reader->at++;
	if (read_count(reader, least))
	{
		*most = *least;
		if (reader->at < reader->end && *reader->at == ',')
		{
			reader->at++;
			if (!read_count(reader, most))
				*most = UNBOUNDED;
		}
		if (reader->at < reader->end && *reader->at == '}')
		{
			reader->at++;
			return true;
		}
	}
	reader->at = begin;
	return false;
}

static bool
read_quantifier(Reader *reader, uint32_t *least, uint32_t *most)
{
	char		c = reader->at < reader->end ? *reader->at : '\0';

	*least = c == '+';
	*most = c == '?' ? 1 : UNBOUNDED;
	if (c == '{')
	{
		if (!read_counts(reader, least, most))
			return false;
	}
	else if (c == '*' || c == '+' || c == '?')
		reader->at++;
	else
		return false;
	/* Whether it likes more or less does not matter to whether it matches. */
	if (reader->at < reader->end && *reader->at == '?')
		reader->at++;
	return true;
}

static RegexNode *
read_atom(Reader *reader)
{
	char		c = *reader->at;
	const char *begin = reader->at;
	RegexNode  *node;
	uint32_t	least;
	uint32_t	most;

	switch (c)
	{
		case '^':
		case '$':
			reader->at++;
			return new_node(reader, c == '^' ? REGEX_BEGIN : REGEX_END);
		case '(':
			reader->at++;
			return read_group(reader);
		case '[':
			reader->at++;
			return read_brackets(reader);
		case '\\':
			reader->at++;
			return read_backslash(reader);
		case '.':
			reader->at++;
			node = new_node(reader, REGEX_SET);
			ADD_KNOWN(reader, &node->set, line_ends, true);
			return node;
		case '*':
		case '+':
		case '?':
			return fail(reader, "quantifier operand invalid");
		case '{':
			if (read_counts(reader, &least, &most))
				return fail(reader, "quantifier operand invalid");
			reader->at = begin;
			break;
	}
	return set_of_character(reader, reader->utf8 ? decode_utf8(&reader->at, reader->end) :
							(unsigned char) *reader->at++);
}

static RegexNode *
read_term(Reader *reader)
{
	RegexNode  *atom = read_atom(reader);
	RegexNode  *repeat;
	uint32_t	least;
	uint32_t	most;

	if (atom == NULL || !read_quantifier(reader, &least, &most))
		return atom;
	if (atom->kind == REGEX_BEGIN || atom->kind == REGEX_END || atom->kind == REGEX_BOUNDARY ||
		atom->kind == REGEX_LOOK)
		return fail(reader, "quantifier operand invalid");
	if (least > most)
		return fail(reader, "invalid repetition count(s)");
	repeat = new_node(reader, REGEX_REPEAT);
	repeat->least = least;
	repeat->most = most;
	add_part(reader, repeat, atom);
	return repeat;
}

static RegexNode *
read_choice(Reader *reader)
{
	RegexNode  *choice = NULL;
	RegexNode  *sequence = new_node(reader, REGEX_SEQUENCE);

	while (reader->at < reader->end && *reader->at != ')')
	{
		RegexNode  *term;

		if (*reader->at == '|')
		{
			reader->at++;
			if (choice == NULL)
				choice = new_node(reader, REGEX_CHOICE);
			add_part(reader, choice, sequence);
			sequence = new_node(reader, REGEX_SEQUENCE);
			continue;
		}
		term = read_term(reader);
		if (term == NULL)
			return NULL;
		add_part(reader, sequence, term);
	}
	if (choice == NULL)
		return sequence;
	add_part(reader, choice, sequence);
	return choice;
}

Regex
regex_parse(void *arena, bool utf8, const char *text, size_t length)
{
	Reader		reader = {.arena = arena,.utf8 = utf8,.at = text,.end = text + length};
	Regex		regex = {0};

	regex.root = read_choice(&reader);
	if (regex.root != NULL && reader.at < reader.end)
		fail(&reader, "parentheses () not balanced");
	if (reader.reason != NULL)
		regex.root = NULL;
	regex.reason = reader.reason;
	regex.looks = reader.looks;
	return regex;
}

/*
 * Writing it as PostgreSQL reads it
 */

static void
write_character(Text *out, uint32_t character)
{
	bool		plain = (character >= '0' && character <= '9') ||
		(character >= 'A' && character <= 'Z') || (character >= 'a' && character <= 'z');

	if (plain)
		text_printf(out, "%c", (char) character);
	else if (character <= 0xFFFF)
		text_printf(out, "\\u%04X", character);
	else
		text_printf(out, "\\U%08X", character);
}

/* Without UTF-8 only the characters of ASCII have a number; what goes beyond is all the rest. */
static void
write_set(Text *out, bool utf8, const CharacterSet *set)
{
	int			last = set->count - 1;
	bool		rest = !utf8 && last >= 0 && set->ranges[last].last == LAST_CHARACTER;
	uint32_t	next = 1;

	if (set->count == 0 || set->ranges[last].last == 0)
	{
		text_string(out, "(?:(?!))");
		return;
	}
	if (!rest)
	{
		text_string(out, "[");
		for (int i = 0; i < set->count; i++)
		{
			uint32_t	first = set->ranges[i].first ? set->ranges[i].first : 1;

			if (set->ranges[i].last < first)
				continue;
			write_character(out, first);
			if (set->ranges[i].last > first)
				text_string(out, "-");
			if (set->ranges[i].last > first)
				write_character(out, set->ranges[i].last);
		}
		text_string(out, "]");
		return;
	}
	if (set->count == 1 && set->ranges[0].first <= 1)
	{
		text_string(out, ".");
		return;
	}
	text_string(out, "[^");
	for (int i = 0; i < set->count; i++)
	{
		if (set->ranges[i].first > next)
		{
			write_character(out, next);
			text_string(out, "-");
			write_character(out, set->ranges[i].first - 1);
		}
		next = set->ranges[i].last + 1;
	}
	text_string(out, "]");
}

static bool write_node(Text *out, bool utf8, const RegexNode *node, const char **reason);

static bool
write_counted(Text *out, bool utf8, const RegexNode *node, uint32_t least, uint32_t most,
			  const char **reason)
{
	text_string(out, "(?:");
	if (!write_node(out, utf8, node->parts[0], reason))
		return false;
	text_string(out, ")");
	if (most == UNBOUNDED)
		text_printf(out, "{%u,}", least);
	else
		text_printf(out, "{%u,%u}", least, most);
	return true;
}

/* A count that is too large for the server is made of several. */
static bool
write_repeat(Text *out, bool utf8, const RegexNode *node, const char **reason)
{
	uint32_t	least = node->least;
	uint32_t	most = node->most;
	int			pieces = 0;

	for (; least > SERVER_COUNT && pieces < SERVER_PIECES; pieces++)
	{
		if (!write_counted(out, utf8, node, SERVER_COUNT, SERVER_COUNT, reason))
			return false;
		least -= SERVER_COUNT;
		most -= most == UNBOUNDED ? 0 : SERVER_COUNT;
	}
	for (; most != UNBOUNDED && most > SERVER_COUNT && pieces < SERVER_PIECES; pieces++)
	{
		if (!write_counted(out, utf8, node, least, SERVER_COUNT, reason))
			return false;
		most -= SERVER_COUNT;
		least = 0;
	}
	if (pieces == SERVER_PIECES)
	{
		*reason = "a count is too large for what it repeats";
		return false;
	}
	return write_counted(out, utf8, node, least, most, reason);
}

static bool
write_node(Text *out, bool utf8, const RegexNode *node, const char **reason)
{
	if (out->length > LARGEST)
	{
		*reason = "it is too large";
		return false;
	}
	switch (node->kind)
	{
		case REGEX_SET:
			write_set(out, utf8, &node->set);
			return true;
		case REGEX_BEGIN:
			text_string(out, "^");
			return true;
		case REGEX_END:
			text_string(out, "$");
			return true;
		case REGEX_BOUNDARY:
			text_string(out, node->negative ? "\\Y" : "\\y");
			return true;
		case REGEX_REPEAT:
			return write_repeat(out, utf8, node, reason);
		case REGEX_LOOK:
			text_string(out, node->behind ? "(?<" : "(?");
			text_string(out, node->negative ? "!" : "=");
			break;
		default:
			text_string(out, "(?:");
	}
	for (int i = 0; i < node->count; i++)
	{
		if (i > 0 && node->kind == REGEX_CHOICE)
			text_string(out, "|");
		if (!write_node(out, utf8, node->parts[i], reason))
			return false;
	}
	text_string(out, ")");
	return true;
}

/* NULL and the reason where PostgreSQL has nothing like it. */
char *
regex_translated(void *arena, bool utf8, const RegexNode *root, const char **reason)
{
	Text		out;

	text_begin(&out, arena);
	text_string(&out, "***:");
	return write_node(&out, utf8, root, reason) ? out.data : NULL;
}
