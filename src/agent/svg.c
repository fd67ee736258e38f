/*
 * svg.c
 *	  Diagrams as SVG.  Graphviz lays them out, in a process of its own.
 *
 * Graphviz is not made for threads, and what it is given comes from users in
 * part: labels.  So it runs in a child, which has read nothing but diagrams,
 * can open nothing, and may use so much memory and time.  What goes wrong
 * there costs a picture; the next one gets a new child.
 *
 * The child is this program again, with the argument SVG_CHILD.  Diagrams go
 * to its standard input and pictures come from its standard output, each
 * behind a Header.  One diagram at a time: svg_render() may be called by any
 * thread, and those who come meanwhile wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <graphviz/gvc.h>
#include <graphviz/gvplugin.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "svg.h"

/*
 * What is drawn at most: beyond it nobody could read the picture, and laying it
 * out takes minutes.
 */
#define MAX_STEPS		1000
#define MAX_ARROWS		4000
#define MAX_DOT			(4 << 20)
#define MAX_SVG			(64 << 20)

#define DEADLINE_MS		5000
#define MAX_MEMORY		(1UL << 30)

/* A child ends after so many pictures: what it leaks goes with it. */
#define MAX_PICTURES	500

typedef enum Answer
{
	ANSWER_SVG,
	ANSWER_UNREADABLE,
	ANSWER_TOO_LARGE,
	ANSWER_FAILED
} Answer;

static const char *const answer_texts[] = {
	[ANSWER_UNREADABLE] = "it is no diagram of steps in the dot language",
	[ANSWER_TOO_LARGE] = "it is too large to be drawn (1,000 steps, 4,000 dependencies)",
	[ANSWER_FAILED] = "its layout failed",
};

typedef struct Header
{
	uint32_t	answer;			/* of a picture; 0 of a diagram */
	uint32_t	length;
} Header;

/* ---- the child ---- */

/* The plugins of Graphviz that are used: none is looked for. */
extern gvplugin_library_t gvplugin_core_LTX_library;
extern gvplugin_library_t gvplugin_dot_layout_LTX_library;

static lt_symlist_t plugins[] = {
	{"gvplugin_dot_layout_LTX_library", &gvplugin_dot_layout_LTX_library},
	{"gvplugin_core_LTX_library", &gvplugin_core_LTX_library},
	{NULL, NULL}
};

/* Graphviz takes names of attributes as its own memory. */
static char attribute_shape[] = "shape";
static char attribute_id[] = "id";
static char attribute_class[] = "class";
static char nothing[] = "";

/*
 * The attributes that diagrams have (src/diagram/diagram.sql).  There are
 * others that make links, read files or run for very long: with these the
 * diagram is refused.
 */
static const char *const known_attributes[] = {
	"label", "rankdir", "labelloc", "fontname", "bgcolor", "shape", "style",
	"color", "fillcolor", "fontcolor", NULL
};

static bool
is_known(const char *name)
{
	for (const char *const *known = known_attributes; *known != NULL; known++)
		if (strcmp(name, *known) == 0)
			return true;
	return false;
}

static bool
has_only_known(Agraph_t *graph, int kind)
{
	for (Agsym_t *symbol = agnxtattr(graph, kind, NULL); symbol != NULL;
		 symbol = agnxtattr(graph, kind, symbol))
		if (!is_known(symbol->name) || aghtmlstr(symbol->defval))
			return false;
	return true;
}

/*
 * Whether an object has no markup, which can name files, and beside its label only
 * words and colours: Graphviz prints some of the others as they are.
 */
static bool
is_plain(Agraph_t *graph, int kind, void *object)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#, ";

	for (Agsym_t *symbol = agnxtattr(graph, kind, NULL); symbol != NULL;
		 symbol = agnxtattr(graph, kind, symbol))
	{
		char	   *value = agxget(object, symbol);

		if (aghtmlstr(value) ||
			(strcmp(symbol->name, "label") != 0 && value[strspn(value, plain)] != '\0'))
			return false;
	}
	return true;
}

static bool
is_box(Agnode_t *node)
{
	const char *shape = agget(node, attribute_shape);

	return shape != NULL && strcmp(shape, "box") == 0;
}

static bool
is_diagram(Agraph_t *graph)
{
	if (!has_only_known(graph, AGRAPH) || !has_only_known(graph, AGNODE) ||
		!has_only_known(graph, AGEDGE) || agfstsubg(graph) != NULL || !is_plain(graph, AGRAPH, graph))
		return false;
	for (Agnode_t *node = agfstnode(graph); node != NULL; node = agnxtnode(graph, node))
	{
		if (!is_plain(graph, AGNODE, node) || !is_box(node))
			return false;
		for (Agedge_t *edge = agfstout(graph, node); edge != NULL; edge = agnxtout(graph, edge))
			if (!is_plain(graph, AGEDGE, edge))
				return false;
	}
	return true;
}

/*
 * Gives each step an id and a class by which a page finds it: step-7 for step_7.
 */
static void
name_steps(Agraph_t *graph)
{
	for (Agnode_t *node = agfstnode(graph); node != NULL; node = agnxtnode(graph, node))
	{
		char	   *name = text_copy(agnameof(node));

		for (char *c = name; *c != '\0'; c++)
			if (*c == '_')
				*c = '-';
		agsafeset(node, attribute_id, name, nothing);
		agsafeset(node, attribute_class, name, nothing);
		free(name);
	}
}

/*
 * Draws one diagram; the picture is Graphviz's to free.
 */
static Answer
draw(GVC_t *gvc, const char *dot, char **svg, unsigned int *length)
{
	Agraph_t   *graph = agmemread(dot);
	Answer		answer = ANSWER_SVG;

	if (graph == NULL)
		return ANSWER_UNREADABLE;
	if (agnnodes(graph) > MAX_STEPS || agnedges(graph) > MAX_ARROWS)
		answer = ANSWER_TOO_LARGE;
	else if (!is_diagram(graph))
		answer = ANSWER_UNREADABLE;
	else
	{
		name_steps(graph);
		if (gvLayout(gvc, graph, "dot") != 0)
			answer = ANSWER_FAILED;
		else
		{
			if (gvRenderData(gvc, graph, "svg", svg, length) != 0 || *svg == NULL)
				answer = ANSWER_FAILED;
			gvFreeLayout(gvc, graph);
		}
	}
	agclose(graph);
	return answer;
}

static void
limit(int resource, rlim_t most)
{
	struct rlimit limits = {most, most};

	setrlimit(resource, &limits);
}

/*
 * The same for what a sanitizer needs: terabytes of addresses for its notes, and
 * files for its reports.  With one, there is no such limit.
 */
static void
deprive(int resource, rlim_t most)
{
#ifndef AGENT_SANITIZE
	limit(resource, most);
#endif
}

/*
 * So much more time for the next picture.  The parent kills a child that is
 * late; this ends one whose parent is gone.
 */
static void
limit_time(void)
{
	struct rusage used;
	struct rlimit limits;

	if (getrusage(RUSAGE_SELF, &used) != 0 || getrlimit(RLIMIT_CPU, &limits) != 0)
		return;
	limits.rlim_cur = (rlim_t) (used.ru_utime.tv_sec + used.ru_stime.tv_sec +
								DEADLINE_MS / 1000 + 2);
	setrlimit(RLIMIT_CPU, &limits);
}

static int
say_nothing(char *message)
{
	(void) message;
	return 0;
}

/*
 * The document begins with the element: what Graphviz puts before it, a page
 * that embeds it has no use for.
 */
static char *
skip_prologue(char *svg, unsigned int *length)
{
	char	   *start = memmem(svg, *length, "<svg", 4);

	if (start == NULL)
		return svg;
	*length -= (unsigned int) (start - svg);
	return start;
}

static bool
answer_one(GVC_t *gvc)
{
	Header		header;
	char	   *dot;
	char	   *svg = NULL;
	unsigned int length = 0;
	Answer		answer;
	bool		said;

	if (fread(&header, sizeof(header), 1, stdin) != 1 || header.length > MAX_DOT)
		return false;
	limit_time();
	dot = allocate(header.length + 1);
	if (fread(dot, 1, header.length, stdin) != header.length)
	{
		free(dot);
		return false;
	}
	dot[header.length] = '\0';
	answer = draw(gvc, dot, &svg, &length);
	free(dot);

	header = (Header) {.answer = answer};
	if (answer == ANSWER_SVG)
	{
		char	   *start = skip_prologue(svg, &length);

		header.length = length;
		said = fwrite(&header, sizeof(header), 1, stdout) == 1 &&
			fwrite(start, 1, length, stdout) == length;
		gvFreeRenderData(svg);
	}
	else
		said = fwrite(&header, sizeof(header), 1, stdout) == 1;
	said = fflush(stdout) == 0 && said;

	/* What Graphviz is left with behind an error, nobody knows. */
	return said && (answer == ANSWER_SVG || answer == ANSWER_TOO_LARGE);
}

/*
 * The whole life of a child.
 */
int
svg_child(void)
{
	GVC_t	   *gvc;

	close_range(STDERR_FILENO + 1, ~0U, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	limit(RLIMIT_CORE, 0);
	deprive(RLIMIT_AS, MAX_MEMORY);
	agseterrf(say_nothing);
	setvbuf(stdout, NULL, _IOFBF, BUFSIZ);	/* main() has it by lines */
	gvc = gvContextPlugins(plugins, 0);
	if (gvc == NULL)
		return EXIT_FAILED;
	deprive(RLIMIT_NOFILE, 0);
	for (int i = 0; i < MAX_PICTURES; i++)
		if (!answer_one(gvc))
			break;
	gvFreeContext(gvc);
	return EXIT_OK;
}

/* ---- the parent ---- */

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* The child, by who has the turn. */
static struct
{
	pid_t		pid;			/* 0: there is none */
	int			to;
	int			from;
	int			pictures;
} child;

static void
end_child(void)
{
	if (child.pid == 0)
		return;
	close(child.to);
	close(child.from);
	kill(child.pid, SIGKILL);
	while (waitpid(child.pid, NULL, 0) < 0 && errno == EINTR)
		;
	child.pid = 0;
}

/*
 * The child gets nothing of ours: no environment, where passwords may be, no
 * signals of a terminal, no blocked or ignored ones.
 */
static int
spawn(int input, int output, pid_t *pid)
{
	static char name[] = "tasker-agent",
				mode[] = SVG_CHILD,
				language[] = "LC_ALL=C.UTF-8";
	char	   *arguments[] = {name, mode, NULL};
	char	   *environment[] = {language, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t	none,
				all;
	int			failure;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
							 POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	failure = posix_spawn(pid, "/proc/self/exe", &actions, &attributes, arguments, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return failure;
}

static bool
start_child(void)
{
	int			input[2],
				output[2];
	pid_t		pid;
	int			failure;

	if (pipe2(input, O_CLOEXEC) != 0)
		return false;
	if (pipe2(output, O_CLOEXEC) != 0)
	{
		close(input[0]);
		close(input[1]);
		return false;
	}
	failure = spawn(input[0], output[1], &pid);
	close(input[0]);
	close(output[1]);
	if (failure != 0)
	{
		close(input[1]);
		close(output[0]);
		return false;
	}
	fcntl(input[1], F_SETFL, O_NONBLOCK);
	fcntl(output[0], F_SETFL, O_NONBLOCK);
	child.pid = pid;
	child.to = input[1];
	child.from = output[0];
	child.pictures = 0;
	return true;
}

/*
 * Waits until the pipe may be read or written; false when the time is over.
 */
static bool
wait_for(int file, short what, long deadline)
{
	struct pollfd poller = {.fd = file, .events = what};
	long		left;

	while ((left = deadline - clock_ms()) > 0)
	{
		int			ready = poll(&poller, 1, (int) left);

		if (ready > 0)
			return true;
		if (ready < 0 && errno != EINTR)
			return false;
	}
	errno = ETIMEDOUT;
	return false;
}

/*
 * A write to a child that has died must not end us, whatever the program does
 * with SIGPIPE: it is blocked in this thread and taken away.
 */
static ssize_t
write_quietly(int file, const void *from, size_t length)
{
	const struct timespec at_once = {0, 0};
	sigset_t	broken,
				before,
				pending;
	bool		was_pending;
	ssize_t		done;
	int			failure;

	sigemptyset(&broken);
	sigaddset(&broken, SIGPIPE);
	sigpending(&pending);
	was_pending = sigismember(&pending, SIGPIPE) == 1;
	pthread_sigmask(SIG_BLOCK, &broken, &before);
	done = write(file, from, length);
	failure = errno;
	if (done < 0 && failure == EPIPE && !was_pending)
		while (sigtimedwait(&broken, NULL, &at_once) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = failure;
	return done;
}

/*
 * Sends or receives all of it before the deadline; errno says why not.
 */
static bool
transfer(bool sends, void *memory, size_t length, long deadline)
{
	char	   *place = memory;

	while (length > 0)
	{
		ssize_t		done = sends ? write_quietly(child.to, place, length) :
			read(child.from, place, length);

		if (done > 0)
		{
			place += done;
			length -= (size_t) done;
		}
		else if (done == 0)
		{
			errno = EPIPE;
			return false;
		}
		else if (errno == EAGAIN)
		{
			if (!wait_for(sends ? child.to : child.from, sends ? POLLOUT : POLLIN, deadline))
				return false;
		}
		else if (errno != EINTR)
			return false;
	}
	return true;
}

/*
 * One diagram through the child; an SVG of which there is memory is the
 * caller's.  Everything else than an answer leaves errno.
 */
static bool
ask(const char *dot, size_t length, long deadline, Answer *answer, char **svg, size_t *svg_length)
{
	Header		header = {.length = (uint32_t) length};

	if (!transfer(true, &header, sizeof(header), deadline) ||
		!transfer(true, (void *) (uintptr_t) dot, length, deadline) ||
		!transfer(false, &header, sizeof(header), deadline))
		return false;
	*answer = header.answer;
	if (header.answer != ANSWER_SVG)
		return header.answer <= ANSWER_FAILED;
	if (header.length > MAX_SVG || (*svg = malloc((size_t) header.length + 1)) == NULL)
	{
		*answer = ANSWER_TOO_LARGE;
		end_child();
		return true;
	}
	if (!transfer(false, *svg, header.length, deadline))
	{
		int			failure = errno;

		free(*svg);
		*svg = NULL;
		errno = failure;
		return false;
	}
	(*svg)[header.length] = '\0';
	*svg_length = header.length;
	return true;
}

/*
 * A child that was idle may have been killed meanwhile, which is no fault of
 * this diagram: that is tried once more, one that fails in a new child is not.
 */
static const char *
render_in_turn(const char *dot, size_t length, char **svg, size_t *svg_length)
{
	long		deadline = clock_ms() + DEADLINE_MS;

	for (;;)
	{
		bool		is_new = child.pid == 0;
		Answer		answer;

		if (is_new && !start_child())
			return "the process that draws could not be started";
		if (ask(dot, length, deadline, &answer, svg, svg_length))
		{
			if ((answer != ANSWER_SVG && answer != ANSWER_TOO_LARGE) ||
				++child.pictures >= MAX_PICTURES)
				end_child();
			return answer == ANSWER_SVG ? NULL : answer_texts[answer];
		}
		if (errno == ETIMEDOUT)
		{
			end_child();
			return "its layout took longer than 5 seconds";
		}
		end_child();
		if (is_new)
			return "the process that draws it ended";
	}
}

/*
 * Draws a diagram in the dot language.  The SVG is the caller's to free, and
 * ends in a zero byte, which svg_length does not count; otherwise *why says
 * why there is none, as a text that stays.  For any thread.
 */
SvgResult
svg_render(const char *dot, size_t length, char **svg, size_t *svg_length, const char **why)
{
	struct timespec until;

	*svg = NULL;
	*svg_length = 0;
	if (length > MAX_DOT)
		*why = answer_texts[ANSWER_TOO_LARGE];
	else
	{
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += 2 * DEADLINE_MS / 1000;
		if (pthread_mutex_clocklock(&turn, CLOCK_MONOTONIC, &until) != 0)
			*why = "too many others are being drawn";
		else
		{
			*why = render_in_turn(dot, length, svg, svg_length);
			pthread_mutex_unlock(&turn);
		}
	}
	return *why == NULL ? SVG_DRAWN :
		*why == answer_texts[ANSWER_TOO_LARGE] ? SVG_TOO_LARGE : SVG_FAILED;
}

/*
 * Ends the child.
 */
void
svg_stop(void)
{
	pthread_mutex_lock(&turn);
	end_child();
	pthread_mutex_unlock(&turn);
}

/* ---- tasker-agent svg ---- */

static char *
read_file(FILE *file, size_t *length)
{
	size_t		space = 64 * 1024;
	char	   *text = malloc(space);

	*length = 0;
	while (text != NULL)
	{
		size_t		done = fread(text + *length, 1, space - *length, file);
		char	   *more;

		*length += done;
		if (done == 0 || *length > MAX_DOT)
			break;
		if (*length < space)
			continue;
		space *= 2;
		more = realloc(text, space);
		if (more == NULL)
			free(text);
		text = more;
	}
	return text;
}

static int
svg_file(FILE *file, const char *name)
{
	size_t		length,
				svg_length;
	char	   *dot = read_file(file, &length);
	char	   *svg;
	const char *why;

	if (dot == NULL || ferror(file))
	{
		complain("could not read %s", name);
		free(dot);
		return EXIT_FAILED;
	}
	if (svg_render(dot, length, &svg, &svg_length, &why) != SVG_DRAWN)
	{
		complain("%s was not drawn: %s", name, why);
		free(dot);
		return EXIT_FAILED;
	}
	fwrite(svg, 1, svg_length, stdout);
	putchar('\n');
	free(svg);
	free(dot);
	return EXIT_OK;
}

/*
 * tasker-agent svg: prints the pictures of these files, or of standard input.
 */
int
svg_files(int count, char *const *paths)
{
	int			status = EXIT_OK;

	if (count == 0)
		status = svg_file(stdin, "standard input");
	for (int i = 0; i < count; i++)
	{
		FILE	   *file = fopen(paths[i], "r");

		if (file == NULL)
		{
			complain("could not open %s: %s", paths[i], strerror(errno));
			status = EXIT_FAILED;
			continue;
		}
		if (svg_file(file, paths[i]) != EXIT_OK)
			status = EXIT_FAILED;
		fflush(stdout);
		fclose(file);
	}
	svg_stop();
	return status;
}
