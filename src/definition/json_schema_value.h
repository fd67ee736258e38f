/*
 * json_schema_value.h
 *	  JSON Schema: values in the binary form of jsonb, and text that is built.
 *
 * The layout is that of the server's jsonb.h and numeric.c, which has been on
 * disks since 9.4 and so can't change; json_schema_host.c asserts what it can.
 * Data need not be aligned: a short jsonb is read without copying it.
 */
#ifndef TASKER_JSON_SCHEMA_VALUE_H
#define TASKER_JSON_SCHEMA_VALUE_H

#include <stdarg.h>
#include <string.h>

#include "definition/json_schema_core.h"

#pragma GCC visibility push(hidden)

/* Header of a container, and of each of its children. */
#define BINARY_COUNT_MASK	0x0FFFFFFFu
#define BINARY_IS_SCALAR	0x10000000u
#define BINARY_IS_OBJECT	0x20000000u
#define BINARY_IS_ARRAY		0x40000000u

#define ENTRY_SIZE_MASK		0x0FFFFFFFu
#define ENTRY_TYPE_MASK		0x70000000u
#define ENTRY_TYPE_SHIFT	28
#define ENTRY_STRING		0x00000000u
#define ENTRY_NUMBER		0x10000000u
#define ENTRY_FALSE			0x20000000u
#define ENTRY_TRUE			0x30000000u
#define ENTRY_NULL			0x40000000u
#define ENTRY_CONTAINER		0x50000000u
#define ENTRY_HAS_OFFSET	0x80000000u

#define NUMBER_BASE			10000

#define SHOWN_NAMES			20	/* in one list */
#define SHOWN_BYTES			60	/* of one value */

typedef struct JsonType
{
	const char *name;
	const char *described;
	int			bit;
} JsonType;

/* A walk over the entries of an object or the elements of an array. */
typedef struct Members
{
	const char *entries;
	const char *base;
	uint32_t	count;
	uint32_t	index;			/* of the member at hand, from 0 */
	uint32_t	next;
	uint32_t	key_offset;
	uint32_t	value_offset;
	bool		is_object;
	JsonValue	key;
	JsonValue	value;
} Members;

/* A number, its digits to the base 10,000, the most significant first, without zeros at either end. */
typedef struct Number
{
	bool		negative;
	bool		special;		/* not a number, or infinite: never in a jsonb that was parsed */
	int			weight;			/* the first digit's power of 10,000 */
	int			scale;			/* decimal places when written */
	int			count;
	const char *digits;			/* two bytes each */
} Number;

/* Text that grows. */
typedef struct Text
{
	void	   *arena;
	char	   *data;			/* ends with a zero byte */
	size_t		length;
	size_t		size;
} Text;

static inline uint32_t
load32(const char *from)
{
	uint32_t	value;

	memcpy(&value, from, sizeof(value));
	return value;
}

static inline uint32_t
align4(uint32_t offset)
{
	return (offset + 3) & ~3u;
}

static inline uint32_t
member_count(const JsonValue *container)
{
	return load32(container->data) & BINARY_COUNT_MASK;
}

/* Where the entry ends that begins at start. */
static inline uint32_t
entry_end(uint32_t entry, uint32_t start)
{
	return entry & ENTRY_HAS_OFFSET ? entry & ENTRY_SIZE_MASK :
		start + (entry & ENTRY_SIZE_MASK);
}

/* Where the entry of that number begins. */
static inline uint32_t
entry_start(const char *entries, uint32_t index)
{
	uint32_t	offset = 0;

	while (index > 0)
	{
		uint32_t	entry = load32(entries + 4 * (size_t) --index);

		offset += entry & ENTRY_SIZE_MASK;
		if (entry & ENTRY_HAS_OFFSET)
			break;
	}
	return offset;
}

static inline void
entry_value(JsonValue *value, uint32_t entry, const char *base, uint32_t start, uint32_t end)
{
	switch (entry & ENTRY_TYPE_MASK)
	{
		case ENTRY_STRING:
			value->type = TYPE_STRING;
			value->data = base + start;
			value->length = end - start;
			return;
		case ENTRY_NUMBER:
			value->type = TYPE_NUMBER;
			value->data = base + align4(start);
			value->length = end - align4(start);
			return;
		case ENTRY_CONTAINER:
			value->data = base + align4(start);
			value->length = end - align4(start);
			value->type = load32(value->data) & BINARY_IS_OBJECT ? TYPE_OBJECT : TYPE_ARRAY;
			return;
		case ENTRY_NULL:
			value->type = TYPE_NULL;
			value->data = base;
			value->length = 0;
			return;
		default:
			value->type = TYPE_BOOLEAN;
			value->data = base;
			value->length = (entry & ENTRY_TYPE_MASK) == ENTRY_TRUE;
	}
}

static inline bool
next_member(Members *members)
{
	uint32_t	entry;
	uint32_t	end;

	if (members->next >= members->count)
		return false;
	members->index = members->next++;
	if (members->is_object)
	{
		entry = load32(members->entries + 4 * (size_t) members->index);
		end = entry_end(entry, members->key_offset);
		members->key.type = TYPE_STRING;
		members->key.data = members->base + members->key_offset;
		members->key.length = end - members->key_offset;
		members->key_offset = end;
		entry = load32(members->entries + 4 * ((size_t) members->count + members->index));
	}
	else
		entry = load32(members->entries + 4 * (size_t) members->index);
	end = entry_end(entry, members->value_offset);
	entry_value(&members->value, entry, members->base, members->value_offset, end);
	members->value_offset = end;
	return true;
}

/* Most texts that are compared are short, and a call costs more than looking at them. */
static inline bool
same_bytes(const char *a, const char *b, size_t length)
{
	uint64_t	x;
	uint64_t	y;

	if (length > 16)
		return memcmp(a, b, length) == 0;
	if (length >= 8)
	{
		memcpy(&x, a, 8);
		memcpy(&y, b, 8);
		if (x != y)
			return false;
		memcpy(&x, a + length - 8, 8);
		memcpy(&y, b + length - 8, 8);
		return x == y;
	}
	if (length >= 4)
		return load32(a) == load32(b) && load32(a + length - 4) == load32(b + length - 4);
	for (size_t i = 0; i < length; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

/* jsonb's order of keys: by length, then by bytes. */
static inline int
compare_keys(const char *a, size_t a_length, const char *b, size_t b_length)
{
	if (a_length != b_length)
		return a_length < b_length ? -1 : 1;
	return same_bytes(a, b, a_length) ? 0 : memcmp(a, b, a_length);
}

static inline int
digit_at(const Number *number, int index)
{
	int16_t		digit;

	memcpy(&digit, number->digits + 2 * (size_t) index, sizeof(digit));
	return digit;
}

/* A number stands there with its length, in one byte or in four. */
static inline size_t
length_bytes(const char *data)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return *data & 0x80 ? 1 : 4;
#else
	return *data & 0x01 ? 1 : 4;
#endif
}

static inline void
read_number(Number *number, const JsonValue *value)
{
	size_t		header = length_bytes(value->data);
	const char *data = value->data + header;
	size_t		length = value->length - header;
	uint16_t	flags;
	size_t		used = 2;

	memcpy(&flags, data, sizeof(flags));
	number->special = (flags & 0xC000) == 0xC000;
	if ((flags & 0xC000) == 0x8000)
	{
		number->negative = (flags & 0x2000) != 0;
		number->scale = (flags & 0x1F80) >> 7;
		number->weight = (flags & 0x003F) - (flags & 0x0040 ? 64 : 0);
	}
	else
	{
		int16_t		weight = 0;

		if (!number->special)
		{
			memcpy(&weight, data + 2, sizeof(weight));
			used = 4;
		}
		number->negative = (flags & 0xC000) == 0x4000;
		number->scale = flags & 0x3FFF;
		number->weight = weight;
	}
	number->digits = data + used;
	number->count = number->special ? 0 : (int) ((length - used) / 2);
}

/* The value of an integer of at most 16 digits. */
static inline bool
small_integer(const JsonValue *value, int64_t *integer)
{
	Number		number;
	int64_t		result = 0;

	read_number(&number, value);
	if (number.special || number.weight > 3 || number.count > number.weight + 1)
	{
		*integer = 0;
		return number.count == 0 && !number.special;
	}
	for (int i = 0; i <= number.weight; i++)
		result = result * NUMBER_BASE + (i < number.count ? digit_at(&number, i) : 0);
	*integer = number.negative ? -result : result;
	return true;
}

static inline bool
is_integral(const JsonValue *value)
{
	Number		number;

	read_number(&number, value);
	return !number.special && number.count <= (number.weight + 1 > 0 ? number.weight + 1 : 0);
}

static inline bool
text_is(const JsonValue *value, const char *text)
{
	return value->type == TYPE_STRING && value->length == strlen(text) &&
		memcmp(value->data, text, value->length) == 0;
}

/* data: a container that is the whole of a jsonb */
extern void root_value(JsonValue *value, const char *data, uint32_t length);
extern void begin_members(Members *members, const JsonValue *container);
extern bool find_entry(const JsonValue *object, const char *key, size_t length, JsonValue *value);
extern bool find_element(const JsonValue *array, uint32_t index, JsonValue *value);

extern int	compare_numbers(const JsonValue *a, const JsonValue *b);
extern bool is_multiple(const JsonValue *value, const JsonValue *of);

/* steps: counted down; it ends with false and -1 when there are none left, or too many levels. */
extern bool values_equal(const JsonValue *a, const JsonValue *b, int64_t *steps);
extern uint64_t hash_bytes_64(const char *data, size_t length, uint64_t seed);
extern uint64_t hash_value(const JsonValue *value, int64_t *steps);

/* Text */
extern void text_begin(Text *text, void *arena);
extern void text_append(Text *text, const char *data, size_t length);
extern void text_string(Text *text, const char *string);
extern void text_printf(Text *text, const char *format,...) __attribute__((format(printf, 2, 3)));
extern void text_vprintf(Text *text, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));
extern char *format_text(void *arena, const char *format,...) __attribute__((format(printf, 2, 3)));
extern char *copy_text(void *arena, const char *data, size_t length);
extern size_t clip(bool utf8, const char *text, size_t length, size_t limit);
extern size_t count_characters(bool utf8, const char *text, size_t length);

/* Decodes one character of UTF-8; what is none counts as a byte. */
extern uint32_t decode_utf8(const char **at, const char *end);

/* Words for people */
extern void append_quoted(Text *text, const char *data, size_t length);
extern void append_clipped(Text *text, bool utf8, const char *data, size_t length);
extern void append_value(Text *text, bool utf8, const JsonValue *value);
extern void append_pointer_part(Text *text, const char *part, size_t length);
extern void append_number(Text *text, const JsonValue *value);
extern const char *number_text(void *arena, const JsonValue *value);
extern const char *pointer_text(void *arena, const Step *path);
extern const char *type_list(void *arena, int types);
extern const JsonType *find_type(const JsonValue *name);

#pragma GCC visibility pop

#endif							/* TASKER_JSON_SCHEMA_VALUE_H */
