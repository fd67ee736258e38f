/*
 * json_schema_format.c
 *	  JSON Schema: the formats of texts.
 *
 * Each as the RFC has it that the draft names.  All but the international ones
 * are ASCII, and so the same in every encoding.
 */
#include "definition/json_schema_internal.h"

#define MAX_HOSTNAME	253
#define MAX_LABEL		63

/* What is still to be read of a text. */
typedef struct Reading
{
	const char *at;
	const char *end;
} Reading;

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool
is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

static bool
take(Reading *reading, char c)
{
	if (reading->at == reading->end || *reading->at != c)
		return false;
	reading->at++;
	return true;
}

static bool
take_letter(Reading *reading, char lower)
{
	if (reading->at == reading->end || (*reading->at | 0x20) != lower)
		return false;
	reading->at++;
	return true;
}

/* Exactly so many digits. */
static bool
take_digits(Reading *reading, int count, int *value)
{
	*value = 0;
	if (reading->end - reading->at < count)
		return false;
	for (int i = 0; i < count; i++, reading->at++)
	{
		if (!is_digit(*reading->at))
			return false;
		*value = *value * 10 + (*reading->at - '0');
	}
	return true;
}

static bool
skip_digits(Reading *reading)
{
	const char *begin = reading->at;

	while (reading->at < reading->end && is_digit(*reading->at))
		reading->at++;
	return reading->at > begin;
}

/*
 * Time
 */

static bool
take_date(Reading *reading)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			year;
	int			month;
	int			day;
	bool		leap;

	if (!take_digits(reading, 4, &year) || !take(reading, '-') ||
		!take_digits(reading, 2, &month) || !take(reading, '-') || !take_digits(reading, 2, &day))
		return false;
	leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] + (leap && month == 2);
}

static bool
take_time(Reading *reading)
{
	int			hour;
	int			minute;
	int			second;
	int			offset_hour = 0;
	int			offset_minute = 0;
	int			utc;

	if (!take_digits(reading, 2, &hour) || !take(reading, ':') ||
		!take_digits(reading, 2, &minute) || !take(reading, ':') ||
		!take_digits(reading, 2, &second))
		return false;
	if (take(reading, '.') && !skip_digits(reading))
		return false;
	if (!take_letter(reading, 'z'))
	{
		bool		behind = reading->at < reading->end && *reading->at == '-';

		if (!behind && !(reading->at < reading->end && *reading->at == '+'))
			return false;
		reading->at++;
		if (!take_digits(reading, 2, &offset_hour) || !take(reading, ':') ||
			!take_digits(reading, 2, &offset_minute) || offset_hour > 23 || offset_minute > 59)
			return false;
		if (behind)
		{
			offset_hour = -offset_hour;
			offset_minute = -offset_minute;
		}
	}
	if (hour > 23 || minute > 59 || second > 60)
		return false;
	/* A leap second is the last one of a day in UTC. */
	utc = (hour * 60 + minute) - (offset_hour * 60 + offset_minute);
	return second < 60 || (utc + 24 * 60) % (24 * 60) == 24 * 60 - 1;
}

static bool
is_date(const char *text, size_t length)
{
	Reading		reading = {text, text + length};

	return take_date(&reading) && reading.at == reading.end;
}

static bool
is_time(const char *text, size_t length)
{
	Reading		reading = {text, text + length};

	return take_time(&reading) && reading.at == reading.end;
}

static bool
is_date_time(const char *text, size_t length)
{
	Reading		reading = {text, text + length};

	return take_date(&reading) && take_letter(&reading, 't') && take_time(&reading) &&
		reading.at == reading.end;
}

/* Numbers with units, in their order; false where none is there, or one is left over. */
static bool
take_parts(Reading *reading, const char *units)
{
	bool		any = false;

	while (reading->at < reading->end && is_digit(*reading->at))
	{
		const char *unit;

		skip_digits(reading);
		if (reading->at == reading->end)
			return false;
		unit = strchr(units, *reading->at);
		/* Hours and seconds want minutes between them, years and days months. */
		if (unit == NULL || *unit == '\0' || (any && unit != units))
			return false;
		units = unit + 1;
		reading->at++;
		any = true;
	}
	return any;
}

static bool
is_duration(const char *text, size_t length)
{
	Reading		reading = {text, text + length};
	bool		has_date;

	if (!take(&reading, 'P'))
		return false;
	if (length > 2 && text[length - 1] == 'W')
		return skip_digits(&reading) && reading.at == reading.end - 1;
	has_date = take_parts(&reading, "YMD");
	if (reading.at == reading.end)
		return has_date;
	return take(&reading, 'T') && take_parts(&reading, "HMS") && reading.at == reading.end;
}

/*
 * Addresses
 */

static bool
is_ipv4(const char *text, size_t length)
{
	Reading		reading = {text, text + length};

	for (int part = 0; part < 4; part++)
	{
		const char *begin;
		int			value = 0;

		if (part > 0 && !take(&reading, '.'))
			return false;
		begin = reading.at;
		while (reading.at < reading.end && is_digit(*reading.at) && reading.at - begin < 3)
			value = value * 10 + (*reading.at++ - '0');
		if (reading.at == begin || value > 255 || (*begin == '0' && reading.at - begin > 1))
			return false;
	}
	return reading.at == reading.end;
}

/* Groups of the form 1:ab:2.  -1: there is something else; the last one may be an IPv4 address. */
static int
count_groups(const char *text, size_t length, bool may_end_in_ipv4)
{
	Reading		reading = {text, text + length};
	int			count = 0;

	if (length == 0)
		return 0;
	for (;;)
	{
		const char *begin = reading.at;

		while (reading.at < reading.end && is_hex(*reading.at))
			reading.at++;
		if (reading.at < reading.end && *reading.at == '.' && may_end_in_ipv4)
			return is_ipv4(begin, reading.end - begin) ? count + 2 : -1;
		if (reading.at == begin || reading.at - begin > 4)
			return -1;
		count++;
		if (reading.at == reading.end)
			return count;
		if (!take(&reading, ':'))
			return -1;
	}
}

static bool
is_ipv6(const char *text, size_t length)
{
	int			before;
	int			behind;

	for (size_t i = 0; i + 1 < length; i++)
	{
		if (text[i] != ':' || text[i + 1] != ':')
			continue;
		before = count_groups(text, i, false);
		behind = count_groups(text + i + 2, length - i - 2, true);
		return before >= 0 && behind >= 0 && before + behind <= 7;
	}
	return count_groups(text, length, true) == 8;
}

static bool
is_label(const char *text, size_t length)
{
	if (length == 0 || length > MAX_LABEL || text[0] == '-' || text[length - 1] == '-')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_letter(text[i]) && !is_digit(text[i]) && text[i] != '-')
			return false;
	return true;
}

static bool
is_hostname(const char *text, size_t length)
{
	size_t		begin = 0;

	if (length == 0 || length > MAX_HOSTNAME)
		return false;
	for (size_t i = 0; i <= length; i++)
	{
		if (i < length && text[i] != '.')
			continue;
		if (!is_label(text + begin, i - begin))
			return false;
		begin = i + 1;
	}
	return true;
}

/* What is quoted may be nearly anything. */
static bool
is_quoted_local_part(const char *text, size_t length)
{
	for (size_t i = 1; i + 1 < length; i++)
	{
		if (text[i] == '\\')
		{
			if (++i + 1 >= length)
				return false;
		}
		else if (text[i] == '"' || (unsigned char) text[i] < ' ' || text[i] == 0x7F)
			return false;
	}
	return length >= 2 && text[length - 1] == '"';
}

static bool
is_local_part(const char *text, size_t length, bool international)
{
	if (length == 0)
		return false;
	if (text[0] == '"')
		return is_quoted_local_part(text, length);
	if (text[0] == '.' || text[length - 1] == '.')
		return false;
	for (size_t i = 0; i < length; i++)
	{
		if (i > 0 && text[i] == '.' && text[i - 1] == '.')
			return false;
		if (!is_letter(text[i]) && !is_digit(text[i]) && !is_one_of(text[i], ".!#$%&'*+-/=?^_`{|}~") &&
			!(international && (unsigned char) text[i] >= 0x80))
			return false;
	}
	return true;
}

static bool is_idn_hostname(const char *text, size_t length);

static bool
is_mailbox(const char *text, size_t length, bool international)
{
	size_t		at = length;
	const char *domain;
	size_t		rest;

	while (at > 0 && text[at - 1] != '@')
		at--;
	if (at == 0 || !is_local_part(text, at - 1, international))
		return false;
	domain = text + at;
	rest = length - at;
	if (rest > 2 && domain[0] == '[' && domain[rest - 1] == ']')
		return (rest > 7 && memcmp(domain + 1, "IPv6:", 5) == 0) ?
			is_ipv6(domain + 6, rest - 7) : is_ipv4(domain + 1, rest - 2);
	return international ? is_idn_hostname(domain, rest) : is_hostname(domain, rest);
}

static bool
is_email(const char *text, size_t length)
{
	return is_mailbox(text, length, false);
}

static bool
is_idn_email(const char *text, size_t length)
{
	return is_mailbox(text, length, true);
}

/*
 * International host names (RFC 5891 and 5892): the rules for contexts, marks at
 * the beginning and the exceptions, for the blocks listed here.  Which of the other
 * characters are allowed would take tables of all of Unicode.
 */

typedef struct Block
{
	uint32_t	first;
	uint32_t	last;
} Block;

static const Block marks[] = {{0x300, 0x36F}, {0x483, 0x489}, {0x591, 0x5BD}, {0x610, 0x61A},
{0x64B, 0x65F}, {0x6D6, 0x6DC}, {0x730, 0x74A}, {0x900, 0x903}, {0x93A, 0x93C}, {0x93E, 0x94F},
{0x981, 0x983}, {0x9BE, 0x9CD}, {0xA01, 0xA03}, {0xA81, 0xA83}, {0xB01, 0xB03}, {0xE31, 0xE31},
{0xE34, 0xE3A}, {0x1AB0, 0x1ACE}, {0x1DC0, 0x1DFF}, {0x20D0, 0x20F0}, {0x3099, 0x309A},
{0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
static const Block viramas[] = {{0x94D, 0x94D}, {0x9CD, 0x9CD}, {0xA4D, 0xA4D}, {0xACD, 0xACD},
{0xB4D, 0xB4D}, {0xBCD, 0xBCD}, {0xC4D, 0xC4D}, {0xCCD, 0xCCD}, {0xD4D, 0xD4D}, {0xDCA, 0xDCA},
{0xE3A, 0xE3A}, {0xF84, 0xF84}, {0x1039, 0x103A}, {0x17D2, 0x17D2}};
static const Block greek[] = {{0x370, 0x3FF}, {0x1F00, 0x1FFF}};
static const Block hebrew[] = {{0x591, 0x5F4}, {0xFB1D, 0xFB4F}};
static const Block japanese[] = {{0x3005, 0x3007}, {0x3021, 0x3029}, {0x3041, 0x3096},
{0x309D, 0x309F}, {0x30A1, 0x30FA}, {0x30FD, 0x30FF}, {0x31F0, 0x31FF}, {0x3400, 0x4DBF},
{0x4E00, 0x9FFF}, {0xF900, 0xFAD9}, {0xFF66, 0xFF9D}, {0x20000, 0x323AF}};
static const Block joining[] = {{0x620, 0x64A}, {0x66E, 0x66F}, {0x671, 0x6D3}, {0x6EE, 0x6EF},
{0x6FA, 0x6FC}, {0x710, 0x710}, {0x712, 0x72F}, {0x74D, 0x77F}};
static const Block disallowed[] = {{0x640, 0x640}, {0x7FA, 0x7FA}, {0x302E, 0x302F},
{0x3031, 0x3035}, {0x303B, 0x303B}, {0x80, 0xB6}, {0xB8, 0xBF}, {0xD7, 0xD7}, {0xF7, 0xF7},
{0x2000, 0x200B}, {0x200E, 0x206F}, {0x2190, 0x2BFF}, {0x3000, 0x3004}, {0x3008, 0x301F},
{0xE000, 0xF8FF}, {0xFE10, 0xFE1F}, {0xFE30, 0xFE4F}, {0xFF00, 0xFF65}, {0xFFF0, 0xFFFF}};

static bool
is_in(uint32_t character, const Block *blocks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (character >= blocks[i].first && character <= blocks[i].last)
			return true;
	return false;
}

#define IS_IN(character, blocks)	is_in(character, blocks, sizeof(blocks) / sizeof((blocks)[0]))

/* The decoded characters of a label. */
typedef struct Label
{
	int			count;
	uint32_t	characters[MAX_LABEL + 1];
} Label;

static bool
has_japanese(const Label *label)
{
	for (int i = 0; i < label->count; i++)
		if (IS_IN(label->characters[i], japanese))
			return true;
	return false;
}

/* What a character wants of its neighbours (RFC 5892, appendix A). */
static bool
fits_context(const Label *label, int i)
{
	uint32_t	before = i > 0 ? label->characters[i - 1] : 0;
	uint32_t	behind = i + 1 < label->count ? label->characters[i + 1] : 0;

	switch (label->characters[i])
	{
		case 0xB7:
			return before == 'l' && behind == 'l';
		case 0x375:
			return IS_IN(behind, greek);
		case 0x5F3:
		case 0x5F4:
			return IS_IN(before, hebrew);
		case 0x30FB:
			return has_japanese(label);
		case 0x200C:
			return IS_IN(before, viramas) || (IS_IN(before, joining) && IS_IN(behind, joining));
		case 0x200D:
			return IS_IN(before, viramas);
	}
	return true;
}

static bool
is_valid_label(const Label *label)
{
	bool		arabic_digits = false;
	bool		extended_digits = false;

	if (label->count == 0 || label->characters[0] == '-' ||
		label->characters[label->count - 1] == '-' || IS_IN(label->characters[0], marks) ||
		(label->count > 3 && label->characters[2] == '-' && label->characters[3] == '-'))
		return false;
	for (int i = 0; i < label->count; i++)
	{
		uint32_t	c = label->characters[i];

		if (c < 0x80 ? !(is_letter((char) c) || is_digit((char) c) || c == '-') :
			IS_IN(c, disallowed))
			return false;
		if (!fits_context(label, i))
			return false;
		arabic_digits |= c >= 0x660 && c <= 0x669;
		extended_digits |= c >= 0x6F0 && c <= 0x6F9;
	}
	return !(arabic_digits && extended_digits);
}

static uint32_t
punycode_threshold(uint32_t k, uint32_t bias)
{
	return k <= bias ? 1 : k >= bias + 26 ? 26 : k - bias;
}

static uint32_t
punycode_adapt(uint32_t delta, uint32_t points, bool first)
{
	uint32_t	k = 0;

	delta = first ? delta / 700 : delta / 2;
	delta += delta / points;
	for (; delta > 455; k += 36)
		delta /= 35;
	return k + 36 * delta / (delta + 38);
}

static int
punycode_digit(char c)
{
	if (is_digit(c))
		return c - '0' + 26;
	return is_letter(c) ? (c | 0x20) - 'a' : -1;
}

/* RFC 3492 */
static bool
decode_punycode(const char *text, size_t length, Label *label)
{
	size_t		basic = length;
	size_t		at;
	uint32_t	n = 0x80;
	uint32_t	bias = 72;
	uint64_t	i = 0;

	while (basic > 0 && text[basic - 1] != '-')
		basic--;
	label->count = 0;
	for (size_t k = 0; k + 1 < basic; k++)
		label->characters[label->count++] = (unsigned char) text[k] | (is_letter(text[k]) ? 0x20 : 0);
	for (at = basic; at < length;)
	{
		uint64_t	begin = i;
		uint64_t	weight = 1;

		for (uint32_t k = 36;; k += 36)
		{
			int			digit = at < length ? punycode_digit(text[at++]) : -1;
			uint32_t	threshold = punycode_threshold(k, bias);

			if (digit < 0)
				return false;
			i += digit * weight;
			if (i > UINT32_MAX)
				return false;
			if ((uint32_t) digit < threshold)
				break;
			weight *= 36 - threshold;
			if (weight > UINT32_MAX)
				return false;
		}
		if (label->count >= MAX_LABEL)
			return false;
		bias = punycode_adapt((uint32_t) (i - begin), label->count + 1, begin == 0);
		n += (uint32_t) (i / (label->count + 1));
		i %= label->count + 1;
		if (n > 0x10FFFF)
			return false;
		memmove(&label->characters[i + 1], &label->characters[i],
				(label->count - i) * sizeof(uint32_t));
		label->characters[i++] = n;
		label->count++;
	}
	return true;
}

static bool
is_idn_label(const char *text, size_t length)
{
	const char *end = text + length;
	Label		label = {0};
	bool		ascii = true;

	if (length >= 4 && (text[0] | 0x20) == 'x' && (text[1] | 0x20) == 'n' && text[2] == '-' &&
		text[3] == '-')
	{
		if (length > MAX_LABEL || length == 4 || !decode_punycode(text + 4, length - 4, &label))
			return false;
		for (int i = 0; i < label.count; i++)
			ascii &= label.characters[i] < 0x80;
		return !ascii && is_valid_label(&label);
	}
	while (text < end)
	{
		if (label.count == MAX_LABEL)
			return false;
		label.characters[label.count] = decode_utf8(&text, end);
		ascii &= label.characters[label.count++] < 0x80;
	}
	/* As punycode it is longer: the prefix, a hyphen and at least a digit a character. */
	return is_valid_label(&label) && (ascii || label.count + 5 <= MAX_LABEL);
}

static bool
is_idn_hostname(const char *text, size_t length)
{
	Reading		reading = {text, text + length};
	const char *begin = text;

	if (length == 0)
		return false;
	/* Three more characters are dots, too. */
	while (reading.at < reading.end)
	{
		const char *here = reading.at;
		uint32_t	c = decode_utf8(&reading.at, reading.end);

		if (c != '.' && c != 0x3002 && c != 0xFF0E && c != 0xFF61)
			continue;
		if (!is_idn_label(begin, here - begin))
			return false;
		begin = reading.at;
	}
	return is_idn_label(begin, reading.end - begin);
}

/*
 * URIs (RFC 3986) and IRIs (RFC 3987)
 */

/* Letters, digits, the marks given, percent signs with two digits. */
static bool
is_made_of(const char *text, size_t length, const char *marks_allowed, bool international)
{
	for (size_t i = 0; i < length; i++)
	{
		if (text[i] == '%')
		{
			if (i + 2 >= length || !is_hex(text[i + 1]) || !is_hex(text[i + 2]))
				return false;
			i += 2;
		}
		else if (!is_letter(text[i]) && !is_digit(text[i]) && !is_one_of(text[i], marks_allowed) &&
				 !(international && (unsigned char) text[i] >= 0x80))
			return false;
	}
	return true;
}

#define URI_UNRESERVED	"-._~"
#define URI_DELIMITERS	"!$&'()*+,;="

static bool
is_ip_literal(const char *text, size_t length)
{
	if (length > 0 && (text[0] | 0x20) == 'v')
	{
		size_t		dot = 1;

		while (dot < length && is_hex(text[dot]))
			dot++;
		return dot > 1 && dot + 1 < length && text[dot] == '.' &&
			memchr(text, '%', length) == NULL &&
			is_made_of(text + dot + 1, length - dot - 1, URI_UNRESERVED URI_DELIMITERS ":", false);
	}
	return is_ipv6(text, length);
}

static bool
is_authority(const char *text, size_t length, bool international)
{
	const char *at = memchr(text, '@', length);
	size_t		port;

	if (at != NULL)
	{
		if (!is_made_of(text, at - text, URI_UNRESERVED URI_DELIMITERS ":", international))
			return false;
		length -= at + 1 - text;
		text = at + 1;
	}
	port = length;
	while (port > 0 && is_digit(text[port - 1]))
		port--;
	if (port > 0 && text[port - 1] == ':')
		length = port - 1;
	if (length > 1 && text[0] == '[')
		return text[length - 1] == ']' && is_ip_literal(text + 1, length - 2);
	return is_made_of(text, length, URI_UNRESERVED URI_DELIMITERS, international);
}

static size_t
length_until(const char *text, size_t length, const char *stops)
{
	size_t		i = 0;

	while (i < length && !is_one_of(text[i], stops))
		i++;
	return i;
}

static bool
is_reference(const char *text, size_t length, bool international, bool absolute)
{
	const char *end = text + length;
	size_t		size = length_until(text, length, ":/?#");

	if (size < length && text[size] == ':' && size > 0 && is_letter(text[0]))
	{
		for (size_t i = 0; i < size; i++)
			if (!is_letter(text[i]) && !is_digit(text[i]) && !is_one_of(text[i], "+-."))
				return false;
		text += size + 1;
	}
	else if (absolute || (size < length && text[size] == ':'))
		return false;
	if (end - text >= 2 && text[0] == '/' && text[1] == '/')
	{
		size = length_until(text + 2, end - text - 2, "/?#");
		if (!is_authority(text + 2, size, international))
			return false;
		text += 2 + size;
	}
	size = length_until(text, end - text, "?#");
	if (!is_made_of(text, size, URI_UNRESERVED URI_DELIMITERS ":@/", international))
		return false;
	text += size;
	if (text < end && *text == '?')
	{
		size = length_until(text, end - text, "#");
		if (!is_made_of(text + 1, size - 1, URI_UNRESERVED URI_DELIMITERS ":@/?", international))
			return false;
		text += size;
	}
	return text == end ||
		is_made_of(text + 1, end - text - 1, URI_UNRESERVED URI_DELIMITERS ":@/?", international);
}

static bool
is_uri(const char *text, size_t length)
{
	return is_reference(text, length, false, true);
}

static bool
is_uri_reference(const char *text, size_t length)
{
	return is_reference(text, length, false, false);
}

static bool
is_iri(const char *text, size_t length)
{
	return is_reference(text, length, true, true);
}

static bool
is_iri_reference(const char *text, size_t length)
{
	return is_reference(text, length, true, false);
}

/* A variable of a template, with its modifiers. */
static bool
is_template_variable(const char *text, size_t length)
{
	size_t		size = length;

	if (size > 0 && text[size - 1] == '*')
		size--;
	else
	{
		size_t		digits = 0;

		while (digits < size && is_digit(text[size - digits - 1]))
			digits++;
		if (digits > 0 && digits < size && text[size - digits - 1] == ':')
		{
			if (digits > 4 || text[size - digits] == '0')
				return false;
			size -= digits + 1;
		}
	}
	return size > 0 && text[0] != '.' && text[size - 1] != '.' &&
		is_made_of(text, size, "_.", false);
}

/* What stands between braces, without them. */
static bool
is_template_expression(const char *text, size_t length)
{
	if (length > 0 && is_one_of(text[0], "+#./;?&=,!@|"))
	{
		text++;
		length--;
	}
	for (;;)
	{
		size_t		size = length_until(text, length, ",");

		if (!is_template_variable(text, size))
			return false;
		if (size == length)
			return true;
		text += size + 1;
		length -= size + 1;
	}
}

/* RFC 6570 */
static bool
is_uri_template(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
	{
		size_t		size;

		if (text[i] == '{')
		{
			size = length_until(text + i + 1, length - i - 1, "}");
			if (i + 1 + size == length || !is_template_expression(text + i + 1, size))
				return false;
			i += size + 1;
		}
		else if (text[i] == '%')
		{
			if (i + 2 >= length || !is_hex(text[i + 1]) || !is_hex(text[i + 2]))
				return false;
		}
		else if ((unsigned char) text[i] <= ' ' || text[i] == 0x7F ||
				 is_one_of(text[i], "\"'<>\\^`|}"))
			return false;
	}
	return true;
}

/*
 * Others
 */

static bool
is_json_pointer(const char *text, size_t length)
{
	if (length > 0 && text[0] != '/')
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] == '~' && (i + 1 == length || (text[i + 1] != '0' && text[i + 1] != '1')))
			return false;
	return true;
}

static bool
is_relative_json_pointer(const char *text, size_t length)
{
	size_t		digits = 0;

	while (digits < length && is_digit(text[digits]))
		digits++;
	if (digits == 0 || (text[0] == '0' && digits > 1))
		return false;
	return (digits + 1 == length && text[digits] == '#') ||
		is_json_pointer(text + digits, length - digits);
}

static bool
is_uuid(const char *text, size_t length)
{
	if (length != 36)
		return false;
	for (size_t i = 0; i < length; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? text[i] != '-' : !is_hex(text[i]))
			return false;
	return true;
}

static const Format formats[] = {
	{"date-time", DRAFT_ALL, is_date_time, "a date and time as in RFC 3339"},
	{"date", DRAFT_7 | DRAFT_2020, is_date, "a date as in RFC 3339"},
	{"time", DRAFT_7 | DRAFT_2020, is_time, "a time as in RFC 3339"},
	{"duration", DRAFT_2020, is_duration, "a duration as in RFC 3339"},
	{"email", DRAFT_ALL, is_email, "an email address"},
	{"idn-email", DRAFT_7 | DRAFT_2020, is_idn_email, "an international email address"},
	{"hostname", DRAFT_ALL, is_hostname, "a host name"},
	{"idn-hostname", DRAFT_7 | DRAFT_2020, is_idn_hostname, "an international host name"},
	{"ipv4", DRAFT_ALL, is_ipv4, "an IPv4 address"},
	{"ipv6", DRAFT_ALL, is_ipv6, "an IPv6 address"},
	{"uri", DRAFT_ALL, is_uri, "a URI"},
	{"uri-reference", DRAFT_7 | DRAFT_2020, is_uri_reference, "a URI or a relative reference"},
	{"iri", DRAFT_7 | DRAFT_2020, is_iri, "an IRI"},
	{"iri-reference", DRAFT_7 | DRAFT_2020, is_iri_reference, "an IRI or a relative reference"},
	{"uri-template", DRAFT_7 | DRAFT_2020, is_uri_template, "a URI template"},
	{"json-pointer", DRAFT_7 | DRAFT_2020, is_json_pointer, "a JSON Pointer"},
	{"relative-json-pointer", DRAFT_7 | DRAFT_2020, is_relative_json_pointer, "a relative JSON Pointer"},
	{"regex", DRAFT_7 | DRAFT_2020, NULL, "a regular expression as in ECMA-262"},
	{"uuid", DRAFT_2020, is_uuid, "a UUID"},
};

/* NULL: there is no such format, or not in that draft. */
const Format *
find_format(const char *name, size_t length, int draft)
{
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if ((formats[i].drafts & draft) && strlen(formats[i].name) == length &&
			memcmp(formats[i].name, name, length) == 0)
			return &formats[i];
	return NULL;
}

/*
 * Content
 */

static int
base64_value(char c)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *found = c ? strchr(letters, c) : NULL;

	return found ? (int) (found - letters) : -1;
}

bool
is_base64(const char *text, size_t length)
{
	if (length % 4 != 0)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		bool		pad = text[i] == '=' && (i + 1 == length || (i + 2 == length && text[i + 1] == '='));

		if (!pad && base64_value(text[i]) < 0)
			return false;
	}
	return true;
}

/* Of what is base64; returns how much there is. */
size_t
decode_base64(const char *text, size_t length, char *out)
{
	size_t		used = 0;
	uint32_t	bits = 0;

	for (size_t i = 0; i < length && text[i] != '='; i++)
	{
		bits = bits << 6 | (uint32_t) base64_value(text[i]);
		if (i % 4 != 0)
			out[used++] = (char) (bits >> (6 - 2 * (i % 4)) & 0xFF);
	}
	return used;
}

/* What a reader of JSON is waiting for. */
typedef enum JsonState
{
	WANT_VALUE,
	WANT_VALUE_OR_END,
	WANT_KEY,
	WANT_KEY_OR_END,
	WANT_MORE
} JsonState;

#define MAX_JSON_DEPTH	1024

static void
skip_space(Reading *reading)
{
	while (reading->at < reading->end && is_one_of(*reading->at, " \t\n\r"))
		reading->at++;
}

static bool
skip_json_string(Reading *reading)
{
	if (!take(reading, '"'))
		return false;
	while (reading->at < reading->end && *reading->at != '"')
	{
		if ((unsigned char) *reading->at < ' ')
			return false;
		if (*reading->at++ != '\\')
			continue;
		if (take(reading, 'u'))
		{
			for (int i = 0; i < 4; i++, reading->at++)
				if (reading->at == reading->end || !is_hex(*reading->at))
					return false;
		}
		else if (reading->at == reading->end || !is_one_of(*reading->at++, "\"\\/bfnrt"))
			return false;
	}
	return take(reading, '"');
}

static bool
skip_json_number(Reading *reading)
{
	take(reading, '-');
	if (!take(reading, '0') && !skip_digits(reading))
		return false;
	if (take(reading, '.') && !skip_digits(reading))
		return false;
	if (!take_letter(reading, 'e'))
		return true;
	if (!take(reading, '+'))
		take(reading, '-');
	return skip_digits(reading);
}

static bool
skip_json_scalar(Reading *reading)
{
	static const char *const words[] = {"true", "false", "null"};

	if (reading->at < reading->end && *reading->at == '"')
		return skip_json_string(reading);
	for (int i = 0; i < 3; i++)
	{
		size_t		length = strlen(words[i]);

		if ((size_t) (reading->end - reading->at) >= length &&
			memcmp(reading->at, words[i], length) == 0)
		{
			reading->at += length;
			return true;
		}
	}
	return skip_json_number(reading);
}

bool
is_json(const char *text, size_t length)
{
	Reading		reading = {text, text + length};
	char		open[MAX_JSON_DEPTH];
	int			depth = 0;
	JsonState	state = WANT_VALUE;

	for (;;)
	{
		skip_space(&reading);
		if (depth > 0 && state != WANT_VALUE && state != WANT_KEY &&
			take(&reading, open[depth - 1]))
		{
			depth--;
			state = WANT_MORE;
			continue;
		}
		if (state == WANT_MORE)
		{
			if (depth == 0)
				return reading.at == reading.end;
			if (!take(&reading, ','))
				return false;
			state = open[depth - 1] == '}' ? WANT_KEY : WANT_VALUE;
			continue;
		}
		if (state == WANT_KEY || state == WANT_KEY_OR_END)
		{
			if (!skip_json_string(&reading))
				return false;
			skip_space(&reading);
			if (!take(&reading, ':'))
				return false;
			state = WANT_VALUE;
			continue;
		}
		if (reading.at < reading.end && (*reading.at == '{' || *reading.at == '['))
		{
			if (depth == MAX_JSON_DEPTH)
				return false;
			open[depth++] = *reading.at == '{' ? '}' : ']';
			state = *reading.at++ == '{' ? WANT_KEY_OR_END : WANT_VALUE_OR_END;
			continue;
		}
		if (!skip_json_scalar(&reading))
			return false;
		state = WANT_MORE;
	}
}
