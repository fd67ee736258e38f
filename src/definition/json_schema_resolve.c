/*
 * json_schema_resolve.c
 *	  JSON Schema: which schema a reference means, and by which draft it is read.
 *
 * When a document comes in, all places in it where the draft has a schema are
 * looked at for names: $id, $anchor, $dynamicAnchor.  What stands in a place
 * that the draft does not know, such as an enum, names nothing.  References
 * find documents that are stored in the database, and nothing else.
 */
#include "definition/json_schema_internal.h"

#define MAX_METASCHEMAS		8	/* of one another */

static void index_schema(Compiler *compiler, Resource *resource, const JsonValue *value,
						 const Step *path, int level);

/*
 * Maps
 */

void
map_begin(Map *map, void *arena)
{
	memset(map, 0, sizeof(Map));
	map->arena = arena;
}

static MapEntry *
map_slot(const Map *map, const char *key, size_t length, uint64_t hash)
{
	size_t		slot = hash & (map->size - 1);

	while (map->entries[slot].value != NULL &&
		   (map->entries[slot].hash != hash || map->entries[slot].length != length ||
			memcmp(map->entries[slot].key, key, length) != 0))
		slot = (slot + 1) & (map->size - 1);
	return &map->entries[slot];
}

void *
map_get(const Map *map, const char *key, size_t length)
{
	return map->size == 0 ? NULL : map_slot(map, key, length, hash_bytes_64(key, length, 0))->value;
}

static void
map_grow(Map *map)
{
	MapEntry   *old = map->entries;
	size_t		old_size = map->size;

	map->size = old_size ? old_size * 2 : 8;
	map->entries = host_alloc(map->arena, map->size * sizeof(MapEntry));
	memset(map->entries, 0, map->size * sizeof(MapEntry));
	for (size_t i = 0; i < old_size; i++)
		if (old[i].value != NULL)
			*map_slot(map, old[i].key, old[i].length, old[i].hash) = old[i];
}

/* The first value of a key stays. */
void
map_put(Map *map, const char *key, size_t length, void *value)
{
	uint64_t	hash = hash_bytes_64(key, length, 0);
	MapEntry   *entry;

	if (map->used * 2 >= map->size)
		map_grow(map);
	entry = map_slot(map, key, length, hash);
	if (entry->value != NULL)
		return;
	entry->key = copy_text(map->arena, key, length);
	entry->length = length;
	entry->hash = hash;
	entry->value = value;
	map->used++;
}

/*
 * Drafts
 */

static const struct
{
	const char *uri;
	Dialect		dialect;
}			metaschemas[] = {
	{"http://json-schema.org/draft-04/schema", {DRAFT_4, VOCABULARY_ALL & ~VOCABULARY_FORMAT}},
	{"http://json-schema.org/draft-07/schema", {DRAFT_7, VOCABULARY_ALL & ~VOCABULARY_FORMAT}},
	{"https://json-schema.org/draft/2020-12/schema", {DRAFT_2020, VOCABULARY_ALL & ~VOCABULARY_ASSERTION}},
};

static const struct
{
	const char *name;
	int			bit;
}			vocabularies[] = {
	{"core", VOCABULARY_CORE},
	{"applicator", VOCABULARY_APPLICATOR},
	{"unevaluated", VOCABULARY_UNEVALUATED},
	{"validation", VOCABULARY_VALIDATION},
	{"meta-data", VOCABULARY_META_DATA},
	{"format-annotation", VOCABULARY_FORMAT},
	{"format-assertion", VOCABULARY_ASSERTION},
	{"content", VOCABULARY_CONTENT},
};

#define LENGTH_OF(array)	((int) (sizeof(array) / sizeof((array)[0])))
#define VOCABULARY_URI		"https://json-schema.org/draft/2020-12/vocab/"
#define STORE_HINT			"tasker.register_schema() stores a schema under its URI."

static const Dialect default_dialect = {DRAFT_2020, VOCABULARY_ALL & ~VOCABULARY_ASSERTION};

/* The bit of a vocabulary; 0: it is not known. */
static int
vocabulary_bit(const JsonValue *uri)
{
	size_t		prefix = strlen(VOCABULARY_URI);

	for (int i = 0; i < LENGTH_OF(vocabularies); i++)
		if (uri->length == prefix + strlen(vocabularies[i].name) &&
			memcmp(uri->data, VOCABULARY_URI, prefix) == 0 &&
			memcmp(uri->data + prefix, vocabularies[i].name, uri->length - prefix) == 0)
			return vocabularies[i].bit;
	return 0;
}

/* Those that a stored metaschema turns on; false: it needs one that is not known. */
static bool
read_vocabularies(Compiler *compiler, const JsonValue *list, Dialect *dialect,
				  const Document *document, const Step *path)
{
	Members		members;
	Text		name;

	dialect->vocabularies = VOCABULARY_CORE;
	begin_members(&members, list);
	while (next_member(&members))
	{
		int			bit = vocabulary_bit(&members.key);

		dialect->vocabularies |= bit;
		if (bit != 0 || members.value.type != TYPE_BOOLEAN || !members.value.length)
			continue;
		text_begin(&name, compiler->arena);
		append_clipped(&name, compiler->program->utf8, members.key.data, members.key.length);
		return refuse(compiler, document, path, NULL,
					  "needs a vocabulary that is not known: %s", name.data);
	}
	return true;
}

/* By what is a schema read whose $schema is this?  false: nobody knows. */
static bool
find_dialect(Compiler *compiler, const JsonValue *name, Dialect *dialect,
			 const Document *document, const Step *path, int level)
{
	const char *uri = uri_without_fragment(compiler->arena,
										   copy_text(compiler->arena, name->data, name->length));
	JsonValue	metaschema;
	JsonValue	value;

	for (int i = 0; i < LENGTH_OF(metaschemas); i++)
		if (strcmp(metaschemas[i].uri, uri) == 0)
		{
			*dialect = metaschemas[i].dialect;
			return true;
		}
	compiler->program->reads_stored = true;
	if (level >= MAX_METASCHEMAS || !host_fetch_schema(compiler->arena, uri, &metaschema) ||
		metaschema.type != TYPE_OBJECT)
		return refuse(compiler, document, path,
					  "The drafts are 2020-12 (https://json-schema.org/draft/2020-12/schema), 7 (http://json-schema.org/draft-07/schema#) and 4 (http://json-schema.org/draft-04/schema#); " STORE_HINT,
					  "names a draft that is not known, and no stored schema: %.*s",
					  (int) clip(compiler->program->utf8, uri, strlen(uri), 2 * SHOWN_BYTES), uri);
	*dialect = default_dialect;
	if (find_entry(&metaschema, "$schema", 7, &value) && value.type == TYPE_STRING &&
		!find_dialect(compiler, &value, dialect, document, path, level + 1))
		return false;
	if (find_entry(&metaschema, "$vocabulary", 11, &value) && value.type == TYPE_OBJECT)
		return read_vocabularies(compiler, &value, dialect, document, path);
	return true;
}

/*
 * Names
 */

static Resource *
add_resource(Compiler *compiler, Document *document, const char *uri, Dialect dialect,
			 const JsonValue *value, const Step *path)
{
	Resource   *resource = host_alloc(compiler->arena, sizeof(Resource));

	memset(resource, 0, sizeof(Resource));
	resource->document = document;
	resource->uri = uri;
	resource->dialect = dialect;
	resource->value = *value;
	resource->path = path;
	map_begin(&resource->dynamic_anchors, compiler->arena);
	resource->next = compiler->resources;
	compiler->resources = resource;
	map_put(&compiler->by_uri, uri, strlen(uri), resource);
	if (value->type == TYPE_OBJECT)
		map_put(&compiler->roots, (const char *) &value->data, sizeof(value->data), resource);
	return resource;
}

static void
add_anchor(Compiler *compiler, Resource *resource, const JsonValue *value, const Step *path,
		   const char *name, size_t length, bool dynamic)
{
	Location   *location = host_alloc(compiler->arena, sizeof(Location));
	char	   *key = format_text(compiler->arena, "%s#%.*s", resource->uri, (int) length, name);

	location->value = *value;
	location->resource = resource;
	location->path = path;
	location->is_dynamic = dynamic;
	map_put(&compiler->by_anchor, key, strlen(key), location);
	if (dynamic)
		map_put(&resource->dynamic_anchors, name, length, location);
}

/* The resource that a schema is in, which may be one of its own; its names are noted. */
static Resource *
index_names(Compiler *compiler, Resource *resource, const JsonValue *schema, const Step *path)
{
	int			draft = resource->dialect.draft;
	bool		is_known = schema->data == resource->value.data;
	const char *id_name = draft == DRAFT_4 ? "id" : "$id";
	const char *anchor = "";
	JsonValue	value;

	/* Beside $ref the older drafts see nothing. */
	if (draft != DRAFT_2020 && find_entry(schema, "$ref", 4, &value) && value.type == TYPE_STRING)
		return resource;
	if (find_entry(schema, id_name, strlen(id_name), &value) && value.type == TYPE_STRING)
	{
		const char *uri = uri_resolve(compiler->arena, resource->uri, value.data, value.length);
		const char *base = uri_without_fragment(compiler->arena, uri);

		anchor = uri_fragment(uri);
		if (is_known)
		{
			resource->uri = base;
			map_put(&compiler->by_uri, base, strlen(base), resource);
		}
		else if (value.length > 0 && value.data[0] != '#')
		{
			Dialect		dialect = resource->dialect;
			JsonValue	draft_name;

			if (find_entry(schema, "$schema", 7, &draft_name) && draft_name.type == TYPE_STRING)
				find_dialect(compiler, &draft_name, &dialect, resource->document,
							 step_to(compiler, path, "$schema", 7), 0);
			resource = add_resource(compiler, resource->document, base, dialect, schema, path);
		}
	}
	if (draft == DRAFT_2020)
	{
		if (find_entry(schema, "$anchor", 7, &value) && value.type == TYPE_STRING)
			add_anchor(compiler, resource, schema, path, value.data, value.length, false);
		if (find_entry(schema, "$dynamicAnchor", 14, &value) && value.type == TYPE_STRING)
			add_anchor(compiler, resource, schema, path, value.data, value.length, true);
	}
	else if (anchor[0] != '\0' && anchor[0] != '/')
		add_anchor(compiler, resource, schema, path, anchor, strlen(anchor), false);
	return resource;
}

/* What stands in a keyword: a schema, a list of them, one for each name. */
#define HOLDS_SCHEMA	0x01
#define HOLDS_LIST		0x02
#define HOLDS_MAP		0x04

static const struct
{
	const char *name;
	int			drafts;
	int			holds;
}			containers[] = {
	{"$defs", DRAFT_2020, HOLDS_MAP},
	{"additionalItems", DRAFT_4 | DRAFT_7, HOLDS_SCHEMA},
	{"additionalProperties", DRAFT_ALL, HOLDS_SCHEMA},
	{"allOf", DRAFT_ALL, HOLDS_LIST},
	{"anyOf", DRAFT_ALL, HOLDS_LIST},
	{"contains", DRAFT_7 | DRAFT_2020, HOLDS_SCHEMA},
	{"contentSchema", DRAFT_2020, HOLDS_SCHEMA},
	{"definitions", DRAFT_ALL, HOLDS_MAP},
	{"dependencies", DRAFT_ALL, HOLDS_MAP},
	{"dependentSchemas", DRAFT_2020, HOLDS_MAP},
	{"else", DRAFT_7 | DRAFT_2020, HOLDS_SCHEMA},
	{"if", DRAFT_7 | DRAFT_2020, HOLDS_SCHEMA},
	{"items", DRAFT_ALL, HOLDS_SCHEMA | HOLDS_LIST},
	{"not", DRAFT_ALL, HOLDS_SCHEMA},
	{"oneOf", DRAFT_ALL, HOLDS_LIST},
	{"patternProperties", DRAFT_ALL, HOLDS_MAP},
	{"prefixItems", DRAFT_2020, HOLDS_LIST},
	{"properties", DRAFT_ALL, HOLDS_MAP},
	{"propertyNames", DRAFT_7 | DRAFT_2020, HOLDS_SCHEMA},
	{"then", DRAFT_7 | DRAFT_2020, HOLDS_SCHEMA},
	{"unevaluatedItems", DRAFT_2020, HOLDS_SCHEMA},
	{"unevaluatedProperties", DRAFT_2020, HOLDS_SCHEMA},
};

static int
what_it_holds(const JsonValue *keyword, int draft)
{
	for (int i = 0; i < LENGTH_OF(containers); i++)
		if ((containers[i].drafts & draft) && text_is(keyword, containers[i].name))
			return containers[i].holds;
	return 0;
}

static const Step *
step_to_member(Compiler *compiler, const Step *parent, const Members *members)
{
	char	   *number;

	if (members->is_object)
		return step_to(compiler, parent, members->key.data, members->key.length);
	number = format_text(compiler->arena, "%u", members->index);
	return step_to(compiler, parent, number, strlen(number));
}

static void
index_schemas(Compiler *compiler, Resource *resource, const JsonValue *list, const Step *path,
			  int level)
{
	Members		members;

	begin_members(&members, list);
	while (next_member(&members))
		if (members.value.type == TYPE_OBJECT)
			index_schema(compiler, resource, &members.value,
						 step_to_member(compiler, path, &members), level);
}

static void
index_schema(Compiler *compiler, Resource *resource, const JsonValue *schema, const Step *path,
			 int level)
{
	Members		members;

	if (level > MAX_NESTING)
	{
		refuse(compiler, resource->document, NULL, NULL, "is nested deeper than %d levels",
			   MAX_NESTING);
		return;
	}
	resource = index_names(compiler, resource, schema, path);
	begin_members(&members, schema);
	while (next_member(&members))
	{
		int			holds = what_it_holds(&members.key, resource->dialect.draft);
		int			type = members.value.type;
		const Step *step;

		if (holds == 0 || !(type & (TYPE_OBJECT | TYPE_ARRAY)))
			continue;
		step = step_to(compiler, path, members.key.data, members.key.length);
		if ((holds & HOLDS_SCHEMA) && type == TYPE_OBJECT)
			index_schema(compiler, resource, &members.value, step, level + 1);
		else if (holds & (type == TYPE_OBJECT ? HOLDS_MAP : HOLDS_LIST))
			index_schemas(compiler, resource, &members.value, step, level + 1);
	}
}

/* dialect is that of who refers to it, unless the document says it itself. */
Document *
add_document(Compiler *compiler, const JsonValue *value, const char *uri, Dialect dialect,
			 bool is_root)
{
	Document   *document = host_alloc(compiler->arena, sizeof(Document));
	Resource   *resource;
	JsonValue	draft_name;

	document->value = *value;
	document->is_root = is_root;
	document->uri = uri;
	document->next = compiler->documents;
	compiler->documents = document;
	if (value->type == TYPE_OBJECT && find_entry(value, "$schema", 7, &draft_name) &&
		draft_name.type == TYPE_STRING)
		find_dialect(compiler, &draft_name, &dialect, document,
					 step_to(compiler, NULL, "$schema", 7), 0);
	resource = add_resource(compiler, document, uri, dialect, value, NULL);
	if (value->type == TYPE_OBJECT)
		index_schema(compiler, resource, value, NULL, 0);
	return document;
}

Resource *
resource_of_document(Compiler *compiler, const Document *document)
{
	for (Resource *resource = compiler->resources; resource != NULL; resource = resource->next)
		if (resource->document == document && resource->path == NULL)
			return resource;
	return NULL;
}

/*
 * References
 */

/* A part of a JSON Pointer, without its escapes; in place. */
static size_t
unescape_pointer(char *part, size_t length)
{
	size_t		used = 0;

	for (size_t i = 0; i < length; i++)
	{
		if (part[i] == '~' && i + 1 < length && (part[i + 1] == '0' || part[i + 1] == '1'))
			part[used++] = part[++i] == '0' ? '~' : '/';
		else
			part[used++] = part[i];
	}
	return used;
}

/* An index as JSON Pointer writes it. */
static bool
read_index(const char *text, size_t length, uint32_t *index)
{
	*index = 0;
	if (length == 0 || length > 9 || (text[0] == '0' && length > 1))
		return false;
	for (size_t i = 0; i < length; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		*index = *index * 10 + (text[i] - '0');
	}
	return true;
}

/* Follows a JSON Pointer, which begins with a slash, from a resource's root. */
static bool
follow_pointer(Compiler *compiler, char *pointer, size_t length, Location *location)
{
	size_t		at = 0;

	while (at < length)
	{
		char	   *part = pointer + at + 1;
		size_t		size = 0;
		uint32_t	index;
		Resource   *own;
		bool		found;

		while (at + 1 + size < length && part[size] != '/')
			size++;
		at += 1 + size;
		size = unescape_pointer(part, size);
		if (location->value.type == TYPE_OBJECT)
			found = find_entry(&location->value, part, size, &location->value);
		else
			found = location->value.type == TYPE_ARRAY && read_index(part, size, &index) &&
				find_element(&location->value, index, &location->value);
		if (!found)
			return false;
		location->path = step_to(compiler, location->path, part, size);
		own = map_get(&compiler->roots, (const char *) &location->value.data,
					  sizeof(location->value.data));
		if (own != NULL && location->value.type == TYPE_OBJECT)
			location->resource = own;
	}
	return true;
}

static Resource *
find_resource(Compiler *compiler, const char *uri, Dialect dialect)
{
	Resource   *resource = map_get(&compiler->by_uri, uri, strlen(uri));
	JsonValue	value;

	if (resource != NULL)
		return resource;
	compiler->program->reads_stored = true;
	if (!host_fetch_schema(compiler->arena, uri, &value))
		return NULL;
	return resource_of_document(compiler, add_document(compiler, &value, uri, dialect, false));
}

static bool
refuse_reference(Compiler *compiler, const Schema *from, const Step *path, const char *hint,
				 const char *what, const char *uri)
{
	size_t		length = clip(compiler->program->utf8, uri, strlen(uri), 2 * SHOWN_BYTES);

	return refuse(compiler, from->resource->document, path, hint, "%s: %.*s%s", what,
				  (int) length, uri, length < strlen(uri) ? "..." : "");
}

bool
resolve_reference(Compiler *compiler, const Schema *from, const char *reference, size_t length,
				  const Step *path, Location *location)
{
	const char *uri = uri_resolve(compiler->arena, from->resource->uri, reference, length);
	const char *base = uri_without_fragment(compiler->arena, uri);
	size_t		fragment_length = strlen(uri_fragment(uri));
	char	   *fragment = uri_decoded(compiler->arena, uri_fragment(uri), &fragment_length);
	const Location *anchor;
	Resource   *resource;
	char	   *key;

	/* Without a base of its own a schema means itself. */
	resource = strcmp(base, from->resource->uri) == 0 ? from->resource :
		find_resource(compiler, base, from->resource->dialect);
	if (resource == NULL)
		return refuse_reference(compiler, from, path, STORE_HINT,
								"refers to a schema that is not stored", uri);
	if (fragment_length == 0 || fragment[0] == '/')
	{
		location->value = resource->value;
		location->resource = resource;
		location->path = resource->path;
		location->is_dynamic = false;
		return follow_pointer(compiler, fragment, fragment_length, location) ||
			refuse_reference(compiler, from, path, NULL, "refers to nothing", uri);
	}
	key = format_text(compiler->arena, "%s#%.*s", resource->uri, (int) fragment_length, fragment);
	anchor = map_get(&compiler->by_anchor, key, strlen(key));
	if (anchor == NULL)
		return refuse_reference(compiler, from, path, NULL, "refers to an anchor that is not there", uri);
	*location = *anchor;
	return true;
}
