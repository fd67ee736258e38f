/*
 * apply.c
 *	  tasker-agent apply: registers the definitions of a directory, all or none.
 *
 * Each file has a savepoint, so that one run tells what is wrong with all of
 * them; a dry run does everything and rolls back, so that it finds whatever the
 * real one would.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"

/* What a definition changes; a long value is shown by how it begins. */
#define SHOWN(value) \
	"CASE WHEN length(" value "::text) > 200 THEN left(" value "::text, 200) || '...' ELSE " value "::text END"
#define READ_CHANGES \
	"SELECT change, path, " SHOWN("before") ", " SHOWN("after") " FROM tasker.diff_task($1, $2)"

/* Two at a time would each tell what the other does; the key is "task", "appl". */
#define TAKE_TURN	"SELECT pg_advisory_xact_lock(x'7461736b'::integer, x'6170706c'::integer)"

typedef struct File
{
	char	   *path;			/* as messages show it: with the directory as it was given */
	char	   *template_id;	/* what it was registered as */
} File;

typedef struct Files
{
	File	   *file;
	size_t		count;
	size_t		space;
} Files;

/* Directories from the given one down to where the walk is. */
typedef struct Ancestor
{
	const struct Ancestor *parent;
	dev_t		device;
	ino_t		inode;
} Ancestor;

typedef struct Apply
{
	const ApplyOptions *options;
	PGconn	   *connection;
	Files		files;
	int			added;
	int			changed;
	int			unchanged;
	bool		failed;
} Apply;

static bool
is_definition(const char *name)
{
	const char *suffix = strrchr(name, '.');

	return suffix != NULL && suffix != name &&
		(strcmp(suffix, ".yaml") == 0 || strcmp(suffix, ".yml") == 0 ||
		 strcmp(suffix, ".json") == 0);
}

static void
add_file(Files *files, char *path)
{
	if (files->count == files->space)
	{
		File	   *more;

		files->space = files->space * 2 + 16;
		more = allocate(files->space * sizeof(File));
		if (files->count > 0)
			memcpy(more, files->file, files->count * sizeof(File));
		free(files->file);
		files->file = more;
	}
	files->file[files->count].path = path;
	files->file[files->count].template_id = NULL;
	files->count++;
}

static bool find_files(Files *files, const char *directory, const Ancestor *parent);

/*
 * Takes in what stands at that path, if it is to be taken in.
 */
static bool
take_entry(Files *files, const char *path, const char *name, const Ancestor *here)
{
	struct stat status;

	if (stat(path, &status) != 0)
	{
		/* What is no definition may be broken, as far as that goes. */
		if (!is_definition(name) && errno == ENOENT)
			return true;
		complain("%s: %s", path, strerror(errno));
		return false;
	}
	if (S_ISDIR(status.st_mode))
		return find_files(files, path, here);
	if (!is_definition(name))
		return true;
	if (!S_ISREG(status.st_mode))
	{
		complain("%s: is no file", path);
		return false;
	}
	add_file(files, text_copy(path));
	return true;
}

/*
 * Adds the definitions below a directory.  Goes on after an error, to tell of
 * all, and returns whether there was none.
 */
static bool
find_files(Files *files, const char *directory, const Ancestor *parent)
{
	Ancestor	here = {.parent = parent};
	struct stat status;
	struct dirent *entry;
	bool		sound = true;
	DIR		   *stream;

	if (stat(directory, &status) != 0 || (stream = opendir(directory)) == NULL)
	{
		complain("%s: %s", directory, strerror(errno));
		return false;
	}
	here.device = status.st_dev;
	here.inode = status.st_ino;
	for (const Ancestor *above = parent; above != NULL; above = above->parent)
		if (above->device == here.device && above->inode == here.inode)
		{
			complain("%s: leads back to a directory above it", directory);
			closedir(stream);
			return false;
		}
	for (errno = 0; (entry = readdir(stream)) != NULL; errno = 0)
	{
		char	   *path;

		/* Hidden ones are other programs'. */
		if (entry->d_name[0] == '.')
			continue;
		path = text_format("%s/%s", directory, entry->d_name);
		if (!take_entry(files, path, entry->d_name, &here))
			sound = false;
		free(path);
	}
	if (errno != 0)
	{
		complain("%s: %s", directory, strerror(errno));
		sound = false;
	}
	closedir(stream);
	return sound;
}

static int
compare_files(const void *a, const void *b)
{
	return strcmp(((const File *) a)->path, ((const File *) b)->path);
}

/*
 * How many bytes the character of UTF-8 that begins here has; 0: it is none.
 */
static int
utf8_length(const unsigned char *text, size_t left)
{
	static const unsigned char first_min[] = {0, 0, 0xC2, 0xE0, 0xF0};
	unsigned char first = text[0];
	int			length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;

	if (length == 1)
		return first != 0;
	if (first < first_min[length] || first > 0xF4 || left < (size_t) length)
		return 0;
	/* No longer than need be, no surrogate, nothing beyond U+10FFFF. */
	if ((first == 0xE0 && text[1] < 0xA0) || (first == 0xED && text[1] > 0x9F) ||
		(first == 0xF0 && text[1] < 0x90) || (first == 0xF4 && text[1] > 0x8F))
		return 0;
	for (int i = 1; i < length; i++)
		if ((text[i] & 0xC0) != 0x80)
			return 0;
	return length;
}

/*
 * Line of the first byte that can't be text; 0: there is none.
 */
static int
line_of_bad_byte(const char *text, size_t size)
{
	int			line = 1;

	for (size_t at = 0; at < size;)
	{
		int			length = utf8_length((const unsigned char *) text + at, size - at);

		if (length == 0)
			return line;
		line += text[at] == '\n';
		at += (size_t) length;
	}
	return 0;
}

/*
 * The text of a file, or NULL, and it was said why.
 */
static char *
read_file(const char *path)
{
	FILE	   *stream = fopen(path, "rb");
	char	   *text = NULL;
	size_t		size = 0;
	size_t		space = 0;
	int			line;

	if (stream == NULL)
	{
		complain("%s: %s", path, strerror(errno));
		return NULL;
	}
	while (!feof(stream) && !ferror(stream))
	{
		char	   *more = allocate(space = space * 2 + 8192);

		if (size > 0)
			memcpy(more, text, size);
		free(text);
		text = more;
		size += fread(text + size, 1, space - size - 1, stream);
	}
	if (ferror(stream))
	{
		complain("%s: %s", path, strerror(errno));
		fclose(stream);
		free(text);
		return NULL;
	}
	fclose(stream);
	text[size] = '\0';
	line = line_of_bad_byte(text, size);
	if (line > 0)
	{
		fprintf(stderr, "%s:%d: is not UTF-8\nHINT: Save the file as UTF-8.\n", path, line);
		free(text);
		return NULL;
	}
	return text;
}

/*
 * Each problem of a definition with its file and line; false where none is found.
 */
static bool
print_problems(Apply *apply, const char *path, const char *text)
{
	const char *values[] = {text, apply->options->environment};
	PGresult   *result = db_query(apply->connection,
								  "SELECT line, path, message, hint FROM tasker.validate_task($1, $2)", 2, values);
	int			rows = PQresultStatus(result) == PGRES_TUPLES_OK ? PQntuples(result) : 0;

	for (int row = 0; row < rows; row++)
	{
		const char *place = PQgetvalue(result, row, 1);

		fprintf(stderr, "%s:%s: ERROR TK005: %s%s%s\n", path, PQgetvalue(result, row, 0),
				place, place[0] == '\0' ? "" : ": ", PQgetvalue(result, row, 2));
		if (!PQgetisnull(result, row, 3))
			fprintf(stderr, "HINT: %s\n", PQgetvalue(result, row, 3));
	}
	PQclear(result);
	return rows > 0;
}

/*
 * A statement on a file failed: what it did is undone, and the others go on.
 * Takes the result.
 */
static void
fail_file(Apply *apply, const char *path, const char *text, PGresult *result)
{
	bool		invalid = text != NULL && db_is(result, "TK005");

	apply->failed = true;
	if (PQstatus(apply->connection) != CONNECTION_OK)
		db_complain(result, path);
	else if (db_run(apply->connection, "ROLLBACK TO file") &&
			 (!invalid || !print_problems(apply, path, text)))
		db_complain(result, path);
	PQclear(result);
}

static void
print_lint(Apply *apply, const char *path, const char *text)
{
	const char *values[] = {text, apply->options->environment};
	PGresult   *result = db_query(apply->connection,
								  "SELECT line, rule, message, hint FROM tasker.lint_task($1, $2)", 2, values);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		fail_file(apply, path, text, result);
		return;
	}
	for (int row = 0; row < PQntuples(result); row++)
		printf("%s:%s: %s: %s\n    %s\n", path, PQgetvalue(result, row, 0), PQgetvalue(result, row, 1),
			   PQgetvalue(result, row, 2), PQgetvalue(result, row, 3));
	PQclear(result);
}

/*
 * A line for each change; the rows are those of tasker.diff_task().
 */
static void
print_changes(const PGresult *rows)
{
	for (int row = 0; row < PQntuples(rows); row++)
	{
		const char *change = PQgetvalue(rows, row, 0);
		const char *path = PQgetvalue(rows, row, 1);
		const char *before = PQgetisnull(rows, row, 2) ? "none" : PQgetvalue(rows, row, 2);
		const char *after = PQgetisnull(rows, row, 3) ? "none" : PQgetvalue(rows, row, 3);

		if (strcmp(change, "added") == 0)
			printf("  + %s: %s\n", path, after);
		else if (strcmp(change, "removed") == 0)
			printf("  - %s: %s\n", path, before);
		else if (strcmp(change, "text") == 0)
			printf("  ~ comments or layout\n");
		else
			printf("  ~ %s: %s -> %s\n", path, before, after);
	}
}

/*
 * Two files that define the same task would replace each other for ever.
 */
static bool
is_taken(Apply *apply, const File *file)
{
	for (const File *other = apply->files.file; other != file; other++)
	{
		if (other->template_id == NULL || strcmp(other->template_id, file->template_id) != 0)
			continue;
		fprintf(stderr, "%s: ERROR: defines the same task as %s\n"
				"HINT: Give one of them another name or version, or remove it.\n",
				file->path, other->path);
		return true;
	}
	return false;
}

/*
 * Tells what became of the file; the rows are those of tasker.diff_task().
 */
static void
report_file(Apply *apply, const File *file, const PGresult *rows)
{
	const char *values[] = {file->template_id};
	PGresult   *template;

	if (is_taken(apply, file))
	{
		apply->failed = true;
		return;
	}
	if (PQntuples(rows) == 0)
	{
		apply->unchanged++;
		return;
	}
	template = db_query(apply->connection,
						"SELECT namespace || '.' || name || '@' || version FROM tasker.template "
						"WHERE template_id = $1", 1, values);
	if (PQresultStatus(template) != PGRES_TUPLES_OK)
	{
		fail_file(apply, file->path, NULL, template);
		return;
	}
	/* The whole is added where there was nothing. */
	if (strcmp(PQgetvalue(rows, 0, 0), "added") == 0 && PQgetvalue(rows, 0, 1)[0] == '\0')
	{
		apply->added++;
		printf("%s: new\n  + %s\n", file->path, PQgetvalue(template, 0, 0));
	}
	else
	{
		apply->changed++;
		printf("%s: changed: %s\n", file->path, PQgetvalue(template, 0, 0));
		print_changes(rows);
	}
	PQclear(template);
}

/*
 * Registers the definition of a file, with all that is to be said of it.
 */
static void
apply_text(Apply *apply, File *file, const char *text)
{
	const char *values[] = {text, apply->options->environment,
	apply->options->no_replace ? "false" : "true"};
	PGresult   *changes;
	PGresult   *registered;

	changes = db_query(apply->connection, READ_CHANGES, 2, values);
	if (PQresultStatus(changes) != PGRES_TUPLES_OK)
	{
		fail_file(apply, file->path, text, changes);
		return;
	}
	registered = db_query(apply->connection,
						  "SELECT tasker.register_task($1, $2, replace => $3)", 3, values);
	if (PQresultStatus(registered) != PGRES_TUPLES_OK)
		fail_file(apply, file->path, text, registered);
	else
	{
		file->template_id = text_copy(PQgetvalue(registered, 0, 0));
		PQclear(registered);
		report_file(apply, file, changes);
		if (apply->options->lint)
			print_lint(apply, file->path, text);
	}
	PQclear(changes);
}

static void
apply_file(Apply *apply, File *file)
{
	char	   *text = read_file(file->path);

	if (text == NULL)
	{
		apply->failed = true;
		return;
	}
	db_notices_about(apply->connection, file->path);
	if (db_run(apply->connection, "SAVEPOINT file"))
	{
		apply_text(apply, file, text);
		if (PQtransactionStatus(apply->connection) == PQTRANS_INTRANS &&
			!db_run(apply->connection, "RELEASE file"))
			apply->failed = true;
	}
	else
		apply->failed = true;
	free(text);
}

/*
 * Ends the transaction.
 */
static bool
finish(Apply *apply)
{
	bool		keep = !apply->failed && !apply->options->dry_run;

	if (PQstatus(apply->connection) != CONNECTION_OK)
		return false;
	if (!db_run(apply->connection, keep ? "COMMIT" : "ROLLBACK"))
		return false;
	return !apply->failed;
}

static int
apply_files(Apply *apply)
{
	if (!db_run(apply->connection, "BEGIN") || !db_run(apply->connection, TAKE_TURN))
		return EXIT_FAILED;
	for (size_t i = 0; i < apply->files.count; i++)
	{
		if (PQstatus(apply->connection) != CONNECTION_OK)
			break;
		apply_file(apply, &apply->files.file[i]);
	}
	if (!finish(apply))
	{
		complain("nothing was registered");
		return EXIT_FAILED;
	}
	printf("%d new, %d changed, %d unchanged%s\n", apply->added, apply->changed, apply->unchanged,
		   apply->options->dry_run ? " (dry run: nothing was registered)" : "");
	return EXIT_OK;
}

int
apply(const ApplyOptions *options)
{
	Apply		state = {.options = options};
	int			status = EXIT_FAILED;
	char	   *directory = text_copy(options->directory);

	for (size_t length = strlen(directory); length > 1 && directory[length - 1] == '/'; length--)
		directory[length - 1] = '\0';
	if (!find_files(&state.files, directory, NULL))
		complain("nothing was registered");
	else if (state.files.count == 0)
		complain("%s: has no *.yaml, *.yml or *.json file", directory);
	else
	{
		qsort(state.files.file, state.files.count, sizeof(File), compare_files);
		state.connection = db_connect(options->database);
		if (state.connection != NULL)
		{
			status = apply_files(&state);
			PQfinish(state.connection);
		}
	}
	for (size_t i = 0; i < state.files.count; i++)
	{
		free(state.files.file[i].path);
		free(state.files.file[i].template_id);
	}
	free(state.files.file);
	free(directory);
	return status;
}
