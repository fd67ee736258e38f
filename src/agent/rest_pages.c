/*
 * rest_pages.c
 *	  The files of the pages, held in memory: nothing of the file system is looked
 *	  up by what a request says.
 *
 * index.html is /tasker/, the others are /tasker/assets/NAME.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "log.h"
#include "rest_internal.h"
#include "settings.h"

#define MAX_PAGES	200
#define MAX_SIZE	(4 * 1024 * 1024)

static Page pages[MAX_PAGES];
static int	page_count;

static const struct
{
	const char *ending;
	const char *type;
}			types[] = {
	{".html", "text/html; charset=utf-8"},
	{".css", "text/css; charset=utf-8"},
	{".js", "text/javascript; charset=utf-8"},
	{".svg", "image/svg+xml"},
	{".png", "image/png"},
	{".json", "application/json"},
	{".webmanifest", "application/manifest+json"},
};

static const char *
type_of(const char *name)
{
	size_t		length = strlen(name);

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
	{
		size_t		width = strlen(types[i].ending);

		if (length > width && strcmp(name + length - width, types[i].ending) == 0)
			return types[i].type;
	}
	return NULL;
}

/* Both forms of a page are made once, and each has a tag of its own. */
static void
pack(Page *page)
{
	Answer		answer = {0};

	answer.body = (Text) {page->data, page->length, 0};
	answer_set_tag(&answer);
	memcpy(page->etag, answer.etag, sizeof(page->etag));
	answer.body = (Text) {0};
	text_add(&answer.body, page->data, page->length);
	answer_compress(&answer, 9);
	if (answer.content_encoding != NULL)
	{
		answer_set_tag(&answer);
		memcpy(page->packed_etag, answer.etag, sizeof(page->packed_etag));
		page->packed = answer.body.data;
		page->packed_length = answer.body.length;
		answer.body = (Text) {0};
	}
	answer_free(&answer);
}

/* A file that can't be read, or is of no type that is served, is not there. */
static void
load(const char *file, const char *name)
{
	const char *type = type_of(name);
	Page	   *page = &pages[page_count];
	FILE	   *stream;
	struct stat status;

	if (type == NULL || page_count == MAX_PAGES || (stream = fopen(file, "rb")) == NULL)
		return;
	if (fstat(fileno(stream), &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= MAX_SIZE)
	{
		page->data = allocate((size_t) status.st_size + 1);
		page->length = fread(page->data, 1, (size_t) status.st_size, stream);
		page->type = type;
		page->path = strcmp(name, "index.html") == 0 ? text_copy("") : text_format("assets/%s", name);
		pack(page);
		page_count++;
	}
	fclose(stream);
}

void
pages_load(void)
{
	const char *directory = setting_text("pages");
	DIR		   *listing = opendir(directory);
	struct dirent *entry;

	if (listing == NULL)
	{
		log_line(LOG_WARNING, "there are no pages", "directory", directory, NULL);
		return;
	}
	while ((entry = readdir(listing)) != NULL)
	{
		char	   *file = text_format("%s/%s", directory, entry->d_name);

		if (entry->d_name[0] != '.')
			load(file, entry->d_name);
		free(file);
	}
	closedir(listing);
	load(setting_text("chart-js"), "chart.js");
}

/* The page of a path; NULL: there is none. */
const Page *
page_find(const Target *target)
{
	if (target->part_count < 2 || target->part_count > 3 || strcmp(target->parts[0], &REST_PREFIX[1]) != 0)
		return NULL;
	for (int i = 0; i < page_count; i++)
	{
		const char *path = pages[i].path;

		if (target->part_count == 2 ? *path == '\0' && target->parts[1][0] == '\0' :
			strcmp(target->parts[1], "assets") == 0 && strncmp(path, "assets/", 7) == 0 &&
			strcmp(path + 7, target->parts[2]) == 0)
			return &pages[i];
	}
	return NULL;
}
