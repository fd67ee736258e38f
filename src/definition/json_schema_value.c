/*
 * json_schema_value.c
 *	  JSON Schema: reading values where they stand, and words for people.
 */
#include "definition/json_schema_value.h"

#include <stdio.h>

#define BASE				NUMBER_BASE
#define MAX_LEVELS			3000	/* of values that are compared */
#define HASHED_LEVELS		64		/* equal values have equal hashes, whatever is below */
#define MODULUS_DIGITS		4		/* of a divisor: what is left over fits in 64 bits */

static const JsonType type_names[] = {
	{"null", "null", TYPE_NULL},
	{"boolean", "a boolean", TYPE_BOOLEAN},
	{"object", "an object", TYPE_OBJECT},
	{"array", "an array", TYPE_ARRAY},
	{"number", "a number", TYPE_NUMBER},
	{"string", "a string", TYPE_STRING},
	{"integer", "an integer", TYPE_INTEGER},
};

#define TYPE_NAMES	((int) (sizeof(type_names) / sizeof(type_names[0])))

/*
 * Containers
 */

/* The whole as one value; a scalar stands in an array of one. */
void
root_value(JsonValue *value, const char *data, uint32_t length)
{
	uint32_t	header = load32(data);

	if (header & BINARY_IS_SCALAR)
	{
		uint32_t	entry = load32(data + 4);

		entry_value(value, entry, data + 8, 0, entry_end(entry, 0));
		return;
	}
	value->type = header & BINARY_IS_OBJECT ? TYPE_OBJECT : TYPE_ARRAY;
	value->data = data;
	value->length = length;
}

void
begin_members(Members *members, const JsonValue *container)
{
	uint32_t	header = load32(container->data);

	members->count = header & BINARY_COUNT_MASK;
	members->is_object = container->type == TYPE_OBJECT;
	members->entries = container->data + 4;
	members->base = members->entries + 4 * (size_t) members->count * (members->is_object ? 2 : 1);
	members->index = 0;
	members->next = 0;
	members->key_offset = 0;
	members->value_offset = members->is_object ? entry_start(members->entries, members->count) : 0;
}

static void
read_entry(JsonValue *value, const char *entries, const char *base, uint32_t index)
{
	uint32_t	entry = load32(entries + 4 * (size_t) index);
	uint32_t	start = entry_start(entries, index);

	entry_value(value, entry, base, start, entry_end(entry, start));
}

bool
find_entry(const JsonValue *object, const char *key, size_t length, JsonValue *value)
{
	const char *entries = object->data + 4;
	uint32_t	count = member_count(object);
	const char *base = entries + 8 * (size_t) count;
	uint32_t	low = 0;
	uint32_t	high = count;

	while (low < high)
	{
		uint32_t	middle = low + (high - low) / 2;
		JsonValue	found;
		int			order;

		read_entry(&found, entries, base, middle);
		order = compare_keys(key, length, found.data, found.length);
		if (order == 0)
		{
			read_entry(value, entries, base, count + middle);
			return true;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return false;
}

bool
find_element(const JsonValue *array, uint32_t index, JsonValue *value)
{
	const char *entries = array->data + 4;
	uint32_t	count = member_count(array);

	if (index >= count)
		return false;
	read_entry(value, entries, entries + 4 * (size_t) count, index);
	return true;
}

/*
 * Numbers
 */

/* Sizes without their signs. */
static int
compare_sizes(const Number *a, const Number *b)
{
	if (a->count == 0 || b->count == 0)
		return (a->count > 0) - (b->count > 0);
	if (a->weight != b->weight)
		return a->weight < b->weight ? -1 : 1;
	for (int i = 0; i < a->count && i < b->count; i++)
	{
		int			x = digit_at(a, i);
		int			y = digit_at(b, i);

		if (x != y)
			return x < y ? -1 : 1;
	}
	return (a->count > b->count) - (a->count < b->count);
}

int
compare_numbers(const JsonValue *a, const JsonValue *b)
{
	Number		x;
	Number		y;

	read_number(&x, a);
	read_number(&y, b);
	if (x.negative != y.negative && x.count + y.count > 0)
		return x.negative ? -1 : 1;
	return x.negative ? compare_sizes(&y, &x) : compare_sizes(&x, &y);
}

static uint64_t
multiply_modulo(uint64_t a, uint64_t b, uint64_t modulus)
{
	return (uint64_t) ((unsigned __int128) a * b % modulus);
}

/* BASE to the power of exponent. */
static uint64_t
power_modulo(uint64_t exponent, uint64_t modulus)
{
	uint64_t	result = 1 % modulus;
	uint64_t	factor = BASE % modulus;

	for (; exponent > 0; exponent >>= 1)
	{
		if (exponent & 1)
			result = multiply_modulo(result, factor, modulus);
		factor = multiply_modulo(factor, factor, modulus);
	}
	return result;
}

/*
 * Both are digits times a power of BASE.  With the greater power in the divisor
 * it can't divide, as the number's last digit is not 0.
 */
bool
is_multiple(const JsonValue *value, const JsonValue *of)
{
	Number		number;
	Number		divisor;
	int			shift;
	uint64_t	modulus = 0;
	uint64_t	rest = 0;

	read_number(&number, value);
	read_number(&divisor, of);
	if (number.count == 0 || divisor.count == 0)
		return number.count == 0 && !number.special;
	shift = (number.weight - number.count) - (divisor.weight - divisor.count);
	if (shift < 0)
		return false;
	if (divisor.count > MODULUS_DIGITS)
		return compare_sizes(&number, &divisor) >= 0 && host_is_multiple(value, of);
	for (int i = 0; i < divisor.count; i++)
		modulus = modulus * BASE + digit_at(&divisor, i);
	for (int i = 0; i < number.count; i++)
		rest = (multiply_modulo(rest, BASE, modulus) + digit_at(&number, i)) % modulus;
	return multiply_modulo(rest, power_modulo(shift, modulus), modulus) == 0;
}

/*
 * Equality and hashes
 */

static bool
scalars_equal(const JsonValue *a, const JsonValue *b)
{
	switch (a->type)
	{
		case TYPE_STRING:
			return a->length == b->length && same_bytes(a->data, b->data, a->length);
		case TYPE_NUMBER:
			return compare_numbers(a, b) == 0;
		case TYPE_BOOLEAN:
			return a->length == b->length;
		default:
			return true;
	}
}

static bool
equal_at_level(const JsonValue *a, const JsonValue *b, int64_t *steps, int level)
{
	Members		x;
	Members		y;

	*steps -= 1 + a->length / 64;
	if (a->type != b->type)
		return false;
	if (!(a->type & (TYPE_OBJECT | TYPE_ARRAY)))
		return scalars_equal(a, b);
	if (member_count(a) != member_count(b))
		return false;
	if (a->length == b->length && memcmp(a->data, b->data, a->length) == 0)
		return true;
	if (level > MAX_LEVELS)
		*steps = -1;
	begin_members(&x, a);
	begin_members(&y, b);
	while (*steps > 0 && next_member(&x) && next_member(&y))
		if ((x.is_object && !scalars_equal(&x.key, &y.key)) ||
			!equal_at_level(&x.value, &y.value, steps, level + 1))
			return false;
	return *steps > 0;
}

/* Equal as JSON Schema has it: numbers by value, objects whatever the order, which jsonb has settled. */
bool
values_equal(const JsonValue *a, const JsonValue *b, int64_t *steps)
{
	return equal_at_level(a, b, steps, 0);
}

uint64_t
hash_bytes_64(const char *data, size_t length, uint64_t seed)
{
	uint64_t	hash = seed ^ (length * UINT64_C(0x9E3779B97F4A7C15));

	while (length > 0)
	{
		uint64_t	word = 0;
		size_t		size = length < 8 ? length : 8;

		memcpy(&word, data, size);
		hash = (hash ^ word) * UINT64_C(0xBF58476D1CE4E5B9);
		hash ^= hash >> 29;
		data += size;
		length -= size;
	}
	hash *= UINT64_C(0x94D049BB133111EB);
	return hash ^ (hash >> 32);
}

static uint64_t
hash_at_level(const JsonValue *value, int64_t *steps, int level)
{
	Number		number;
	Members		members;
	uint64_t	hash = value->type;

	*steps -= 1 + (value->type == TYPE_STRING ? value->length / 64 : 0);
	switch (value->type)
	{
		case TYPE_STRING:
			return hash_bytes_64(value->data, value->length, hash);
		case TYPE_NUMBER:
			read_number(&number, value);
			if (number.count > 0)
				hash += 256 * (uint64_t) (number.weight * 2 + number.negative);
			return hash_bytes_64(number.digits, 2 * (size_t) number.count, hash);
		case TYPE_BOOLEAN:
			return hash_bytes_64("", 0, hash + 256 * (uint64_t) value->length);
		case TYPE_NULL:
			return hash_bytes_64("", 0, hash);
	}
	if (level >= HASHED_LEVELS)
		return hash;
	begin_members(&members, value);
	while (next_member(&members) && *steps > 0)
	{
		uint64_t	inner = hash_at_level(&members.value, steps, level + 1);

		if (members.is_object)
			hash = hash_bytes_64(members.key.data, members.key.length, hash);
		hash = hash_bytes_64((const char *) &inner, sizeof(inner), hash);
	}
	return hash;
}

/* Equal values have equal hashes. */
uint64_t
hash_value(const JsonValue *value, int64_t *steps)
{
	return hash_at_level(value, steps, 0);
}

/*
 * Text
 */

void
text_begin(Text *text, void *arena)
{
	text->arena = arena;
	text->size = 64;
	text->data = host_alloc(arena, text->size);
	text->data[0] = '\0';
	text->length = 0;
}

static void
make_room(Text *text, size_t more)
{
	size_t		size = text->size;
	char	   *data;

	if (text->length + more < size)
		return;
	while (size <= text->length + more)
		size *= 2;
	data = host_alloc(text->arena, size);
	memcpy(data, text->data, text->length + 1);
	text->data = data;
	text->size = size;
}

void
text_append(Text *text, const char *data, size_t length)
{
	make_room(text, length);
	memcpy(text->data + text->length, data, length);
	text->length += length;
	text->data[text->length] = '\0';
}

void
text_string(Text *text, const char *string)
{
	text_append(text, string, strlen(string));
}

void
text_vprintf(Text *text, const char *format, va_list args)
{
	va_list		again;
	int			needed;

	va_copy(again, args);
	needed = vsnprintf(text->data + text->length, text->size - text->length, format, args);
	if (needed >= (int) (text->size - text->length))
	{
		make_room(text, needed);
		needed = vsnprintf(text->data + text->length, text->size - text->length, format, again);
	}
	text->length += needed;
	va_end(again);
}

void
text_printf(Text *text, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	text_vprintf(text, format, args);
	va_end(args);
}

char *
format_text(void *arena, const char *format,...)
{
	Text		text;
	va_list		args;

	text_begin(&text, arena);
	va_start(args, format);
	text_vprintf(&text, format, args);
	va_end(args);
	return text.data;
}

char *
copy_text(void *arena, const char *data, size_t length)
{
	char	   *copy = host_alloc(arena, length + 1);

	if (length > 0)
		memcpy(copy, data, length);
	copy[length] = '\0';
	return copy;
}

/* Bytes of as many characters as fit into the limit. */
size_t
clip(bool utf8, const char *text, size_t length, size_t limit)
{
	if (length <= limit)
		return length;
	if (!utf8)
		return host_clip(text, length, limit);
	while (limit > 0 && (text[limit] & 0xC0) == 0x80)
		limit--;
	return limit;
}

size_t
count_characters(bool utf8, const char *text, size_t length)
{
	size_t		count = 0;

	if (!utf8)
		return host_characters(text, length);
	for (size_t i = 0; i < length; i++)
		count += (text[i] & 0xC0) != 0x80;
	return count;
}

uint32_t
decode_utf8(const char **at, const char *end)
{
	const unsigned char *text = (const unsigned char *) *at;
	uint32_t	first = text[0];
	int			more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : first >= 0xC0 ? 1 : 0;
	uint32_t	result;

	if (more == 0 || end - *at <= more)
	{
		*at += 1;
		return first;
	}
	result = first & (0x3F >> more);
	for (int i = 1; i <= more; i++)
		result = result << 6 | (text[i] & 0x3F);
	*at += more + 1;
	return result;
}

/*
 * Words for people
 */

/* Appends text, shortened where it is long. */
void
append_clipped(Text *text, bool utf8, const char *data, size_t length)
{
	size_t		shown = clip(utf8, data, length, SHOWN_BYTES);

	text_append(text, data, shown);
	if (shown < length)
		text_string(text, "...");
}

/* Appends a string as JSON writes it. */
void
append_quoted(Text *text, const char *data, size_t length)
{
	static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";

	text_append(text, "\"", 1);
	for (size_t i = 0; i < length; i++)
	{
		const char *found = NULL;

		for (int k = 0; escapes[k] != '\0' && found == NULL; k += 2)
			if (escapes[k] == data[i])
				found = &escapes[k + 1];
		if (found != NULL)
			text_printf(text, "\\%c", *found);
		else if ((unsigned char) data[i] < ' ')
			text_printf(text, "\\u%04x", data[i]);
		else
			text_append(text, &data[i], 1);
	}
	text_append(text, "\"", 1);
}

/* Appends a number as it was written, but no more than a reader wants to see. */
void
append_number(Text *text, const JsonValue *value)
{
	Number		number;
	size_t		enough = text->length + 2 * SHOWN_BYTES;

	read_number(&number, value);
	if (number.special)
	{
		text_string(text, "NaN");
		return;
	}
	if (number.negative)
		text_string(text, "-");
	if (number.weight < 0 || number.count == 0)
		text_string(text, "0");
	for (int i = 0; number.count > 0 && i <= number.weight && text->length < enough; i++)
		text_printf(text, i == 0 ? "%d" : "%04d", i < number.count ? digit_at(&number, i) : 0);
	if (number.scale > 0)
		text_string(text, ".");
	for (int place = 0; place < number.scale && text->length < enough; place += 4)
	{
		int			index = number.weight + 1 + place / 4;
		int			digit = index >= 0 && index < number.count ? digit_at(&number, index) : 0;
		char		digits[8];

		snprintf(digits, sizeof(digits), "%04d", digit);
		text_append(text, digits, number.scale - place < 4 ? number.scale - place : 4);
	}
}

const char *
number_text(void *arena, const JsonValue *value)
{
	Text		whole;
	Text		clipped;

	text_begin(&whole, arena);
	append_number(&whole, value);
	text_begin(&clipped, arena);
	append_clipped(&clipped, true, whole.data, whole.length);
	return clipped.data;
}

static void append_json(Text *text, bool utf8, const JsonValue *value, size_t enough);

static void
append_container(Text *text, bool utf8, const JsonValue *value, size_t enough)
{
	Members		members;

	text_string(text, value->type == TYPE_OBJECT ? "{" : "[");
	begin_members(&members, value);
	while (text->length < enough && next_member(&members))
	{
		if (members.index > 0)
			text_string(text, ", ");
		if (members.is_object)
		{
			append_quoted(text, members.key.data, members.key.length);
			text_string(text, ": ");
		}
		append_json(text, utf8, &members.value, enough);
	}
	text_string(text, value->type == TYPE_OBJECT ? "}" : "]");
}

/* Each level adds a character, so it does not get deeper than there is room. */
static void
append_json(Text *text, bool utf8, const JsonValue *value, size_t enough)
{
	if (text->length >= enough)
		return;
	switch (value->type)
	{
		case TYPE_NULL:
			text_string(text, "null");
			break;
		case TYPE_BOOLEAN:
			text_string(text, value->length ? "true" : "false");
			break;
		case TYPE_NUMBER:
			append_number(text, value);
			break;
		case TYPE_STRING:
			append_quoted(text, value->data,
						  clip(utf8, value->data, value->length, 2 * SHOWN_BYTES));
			break;
		default:
			append_container(text, utf8, value, enough);
	}
}

/* Appends a value as JSON, shortened where it is long. */
void
append_value(Text *text, bool utf8, const JsonValue *value)
{
	Text		whole;

	text_begin(&whole, text->arena);
	append_json(&whole, utf8, value, 2 * SHOWN_BYTES);
	append_clipped(text, utf8, whole.data, whole.length);
}

/* Appends a part of a JSON Pointer. */
void
append_pointer_part(Text *text, const char *part, size_t length)
{
	text_append(text, "/", 1);
	for (size_t i = 0; i < length; i++)
	{
		if (part[i] == '~')
			text_string(text, "~0");
		else if (part[i] == '/')
			text_string(text, "~1");
		else
			text_append(text, &part[i], 1);
	}
}

/* The way to a part of a schema, as a JSON Pointer. */
const char *
pointer_text(void *arena, const Step *path)
{
	Text		text;
	const Step **steps;
	int			depth = 0;

	for (const Step *step = path; step != NULL; step = step->parent)
		depth++;
	steps = host_alloc(arena, (depth + 1) * sizeof(Step *));
	for (int i = depth; i > 0; path = path->parent)
		steps[--i] = path;
	text_begin(&text, arena);
	for (int i = 0; i < depth; i++)
		append_pointer_part(&text, steps[i]->name, steps[i]->length);
	return text.data;
}

/* Names of types: "integer or null". */
const char *
type_list(void *arena, int types)
{
	Text		text;
	int			left = types;

	text_begin(&text, arena);
	for (int i = 0; i < TYPE_NAMES; i++)
	{
		if (!(types & type_names[i].bit))
			continue;
		left &= ~type_names[i].bit;
		if (text.length > 0)
			text_string(&text, left == 0 ? " or " : ", ");
		text_string(&text, type_names[i].name);
	}
	return text.data;
}

/* A type by its name; NULL: no such type. */
const JsonType *
find_type(const JsonValue *name)
{
	for (int i = 0; i < TYPE_NAMES; i++)
		if (text_is(name, type_names[i].name))
			return &type_names[i];
	return NULL;
}

const char *
schema_describe(void *arena, const JsonValue *value)
{
	if (value->type == TYPE_NUMBER)
		return format_text(arena, "the number %s", number_text(arena, value));
	for (int i = 0; i < TYPE_NAMES; i++)
		if (type_names[i].bit == value->type)
			return type_names[i].described;
	return "";
}
