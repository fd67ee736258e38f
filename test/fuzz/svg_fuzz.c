/*
 * svg_fuzz.c
 *	  Arbitrary bytes for what draws diagrams, in its own process.
 *
 * The first byte says what the others are: a diagram in the dot language, the value
 * of an attribute, or the labels of a diagram as the database writes it.  What is
 * drawn must be of the elements that diagrams have, and of nothing that a browser
 * would run or fetch.
 */
#include "svg.c"

#define check(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* Beyond it a layout may take a second. */
#define MOST_BYTES	1024

/* As far as the tag's name goes; the comment is of Graphviz's own making. */
static const char *const elements[] = {
	"svg", "g", "title", "polygon", "polyline", "path", "text", "!--", NULL
};

static bool
is_element(const char *name, size_t length)
{
	for (const char *const *known = elements; *known != NULL; known++)
		if (strlen(*known) == length && memcmp(*known, name, length) == 0)
			return true;
	return false;
}

static void
check_svg(const char *svg, size_t length)
{
	char	   *text = allocate(length + 1);

	memcpy(text, svg, length);
	text[length] = '\0';
	check(strlen(text) == length);
	check(strncmp(text, "<svg ", 5) == 0);
	check(length > 7 && strcmp(text + length - 7, "</svg>\n") == 0);
	for (const char *tag = text; (tag = strchr(tag, '<')) != NULL; tag++)
	{
		const char *name = tag + 1 + (tag[1] == '/');

		check(is_element(name, strcspn(name, " \n>")));
	}
	free(text);
}

static Answer
try_dot(const char *dot)
{
	static GVC_t *gvc;
	char	   *svg = NULL;
	unsigned int length = 0;
	Answer		answer;

	if (gvc == NULL)
	{
		agseterrf(say_nothing);
		gvc = gvContextPlugins(plugins, 0);
	}
	answer = draw(gvc, dot, &svg, &length);
	check(answer <= ANSWER_FAILED);
	if (answer == ANSWER_SVG)
	{
		const char *start = skip_prologue(svg, &length);

		check_svg(start, length);
		gvFreeRenderData(svg);
	}
	return answer;
}

/*
 * Graphviz goes on where the last diagram made it stumble, so that it has a process of
 * its own here as well.
 */
static void
try_any(const char *dot)
{
	pid_t		pid = fork();
	int			status;

	check(pid >= 0);
	if (pid == 0)
	{
		(void) try_dot(dot);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		check(errno == EINTR);
	check(status == 0);
}

/* As tasker._dot_text() writes it. */
static void
print_label(FILE *dot, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
	{
		if (text[i] == '&')
			fputs("&amp;", dot);
		else if (text[i] == '\n')
			fputs("\\n", dot);
		else
		{
			if (text[i] == '\\' || text[i] == '"')
				fputc('\\', dot);
			fputc(text[i], dot);
		}
	}
}

/* Labels of a chain of steps, with tabs between them; the first is the title, too. */
static void
try_labels(const char *text)
{
	char	   *written = NULL;
	size_t		size;
	FILE	   *dot = open_memstream(&written, &size);
	int			steps = 0;

	fputs("digraph workflow { graph [label=\"", dot);
	print_label(dot, text, strcspn(text, "\t"));
	fputs("\", labelloc=t, fontname=\"Helvetica\", bgcolor=\"transparent\"];\n"
		  "node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\"];\n", dot);
	for (const char *line = text; *line != '\0'; line += strcspn(line, "\t"), line += *line == '\t')
	{
		fprintf(dot, "step_%d [label=\"", ++steps);
		print_label(dot, line, strcspn(line, "\t"));
		fputs("\", fillcolor=\"#cfe3ff\", color=\"#3b6ea5\", fontcolor=\"#11263f\"];\n", dot);
		if (steps > 1)
			fprintf(dot, "step_%d -> step_%d;\n", steps - 1, steps);
	}
	fputs("}\n", dot);
	fclose(dot);
	check(try_dot(written) == ANSWER_SVG);
	free(written);
}

/* An attribute of a diagram, of its steps, of one of them, or of its arrows. */
static void
try_value(const char *text, size_t length)
{
	static const char *const places[] = {"graph", "node", "step_1", "edge"};
	const size_t attributes = sizeof(known_attributes) / sizeof(known_attributes[0]) - 1;
	char	   *written = NULL;
	size_t		size;
	FILE	   *dot;

	if (length < 2)
		return;
	dot = open_memstream(&written, &size);
	fprintf(dot, "digraph workflow { node [shape=box]; %s [%s=\"",
			places[(unsigned char) text[0] % 4], known_attributes[(unsigned char) text[1] % attributes]);
	print_label(dot, text + 2, strlen(text + 2));
	fputs("\"]; step_1 -> step_2; }\n", dot);
	fclose(dot);
	(void) try_dot(written);
	free(written);
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;

	if (size == 0 || size > MOST_BYTES)
		return -1;
	text = allocate(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0] % 3)
	{
		case 0:
			try_any(text);
			break;
		case 1:
			try_labels(text);
			break;
		case 2:
			try_value(text, size - 1);
			break;
	}
	free(text);
	return 0;
}
