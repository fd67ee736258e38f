/*
 * schema_fuzz.c
 *	  JSON Schema under libFuzzer: a schema and an instance, each as JSON, with a
 *	  line's end between them.
 *
 * Whatever they are, it must neither crash nor hang; and what it says must agree
 * with itself: with and without descriptions of the problems, and with GMP about
 * multiples.
 */
#include <stdlib.h>

#include "schema_host.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_answers(const Program *program, const JsonValue *instance, Arena *arena)
{
	CheckResult quick = schema_check(program, instance, arena, 0);
	CheckResult told = schema_check(program, instance, arena, 20);

	if (quick.failure != CHECK_DONE || told.failure != CHECK_DONE)
		return;
	if (quick.valid != told.valid || told.valid != (told.count == 0) ||
		told.valid != (told.problems == NULL))
		abort();
}

static void
check_multiples(const JsonValue *schema, const JsonValue *instance)
{
	JsonValue	factor;
	Number		number;

	if (schema->type != TYPE_OBJECT || instance->type != TYPE_NUMBER ||
		!find_entry(schema, "multipleOf", 10, &factor) || factor.type != TYPE_NUMBER)
		return;
	read_number(&number, &factor);
	if (number.count > 0 && is_multiple(instance, &factor) != exact_is_multiple(instance, &factor))
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *) data;
	const char *middle = memchr(data, '\n', size);
	size_t		length;
	Arena	   *arena;
	JsonValue	schema;
	JsonValue	instance;

	if (middle == NULL)
		return 0;
	length = middle - text;
	arena = arena_new();
	host_store(text, length);
	if (json_to_binary(arena, text, length, 0, &schema))
	{
		const Program *program = schema_compile(arena, &schema, true);

		if (json_to_binary(arena, middle + 1, size - length - 1, 1, &instance))
		{
			if (program->problems == NULL)
				check_answers(program, &instance, arena);
			check_multiples(&schema, &instance);
		}
	}
	arena_free(arena);
	return 0;
}
