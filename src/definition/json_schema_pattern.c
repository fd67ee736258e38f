/*
 * json_schema_pattern.c
 *	  JSON Schema: patterns, each by the means that suits it.
 */
#include "definition/json_schema_regex.h"

struct Pattern
{
	Automaton  *automaton;		/* or else */
	HostRegex  *regex;
};

/* NULL and the reason where it can't be. */
const Pattern *
pattern_compile(Compiler *compiler, const char *text, size_t length, const char **reason)
{
	bool		utf8 = compiler->program->utf8;
	Regex		regex = regex_parse(compiler->arena, utf8, text, length);
	Pattern    *pattern = host_alloc(compiler->arena, sizeof(Pattern));
	char	   *translated;

	*reason = regex.reason;
	if (regex.root == NULL)
		return NULL;
	memset(pattern, 0, sizeof(Pattern));
	if (!regex.looks && utf8)
		pattern->automaton = automaton_make(compiler->arena, &compiler->scratch, regex.root,
											&compiler->automaton_steps);
	if (pattern->automaton != NULL)
		return pattern;
	translated = regex_translated(compiler->arena, utf8, regex.root, reason);
	if (translated != NULL)
		pattern->regex = host_regex_compile(compiler->arena, translated, strlen(translated), reason);
	return pattern->regex ? pattern : NULL;
}

bool
pattern_matches(Run *run, const Pattern *pattern, const char *text, size_t length)
{
	if (pattern->automaton != NULL)
		return spend(run, 1 + length / 16) && automaton_matches(pattern->automaton, text, length);
	return spend(run, 16 + length) && host_regex_match(pattern->regex, text, length);
}

bool
pattern_is_valid(void *arena, bool utf8, const char *text, size_t length)
{
	return regex_parse(arena, utf8, text, length).root != NULL;
}
