/*
 * workload.c
 *	  The protocol with the harness, and the few calls of libpq that workloads
 *	  need.  README.md says what the words mean.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "workload.h"

/* The harness must have read the counters of this session before it ends. */
#define LEAVE_AFTER_US	100000

/* Not longer than the protocol allows. */
#define POLL_US			5000

void
fail(const char *format, ...)
{
	va_list		arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* Waits for the harness's answer. */
static void
wait_for_answer(void)
{
	char		line[256];

	if (fgets(line, sizeof(line), stdin) == NULL)
		fail("the harness is gone");
}

void
mark(const char *name)
{
	printf("mark %s\n", name);
	fflush(stdout);
	wait_for_answer();
}

/*
 * The mark at the end of an interval.  A session reports its counters when it
 * ends, else up to ten seconds later; so it ends here, and before the answer.
 */
void
mark_and_leave(const char *name, PGconn **db)
{
	printf("mark %s\n", name);
	fflush(stdout);
	pause_us(LEAVE_AFTER_US);
	PQfinish(*db);
	*db = NULL;
	wait_for_answer();
}

void
value(const char *key, double number)
{
	printf("value %s %.6f\n", key, number);
}

void
note(const char *format, ...)
{
	va_list		arguments;

	fputs("note ", stdout);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
}

/* What it is not made for is no failure. */
void
cannot(const char *reason)
{
	note("%s", reason);
	exit(3);
}

void
done(void)
{
	puts("done");
	fflush(stdout);
}

long
number_of(const char *variable, long usual)
{
	const char *text = getenv(variable);

	return text != NULL && *text != '\0' ? atol(text) : usual;
}

double
clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static double
usage_us(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

double
cpu_us(void)
{
	return usage_us(RUSAGE_SELF) + usage_us(RUSAGE_CHILDREN);
}

void
pause_us(long us)
{
	struct timespec left = {us / 1000000, us % 1000000 * 1000};

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

/* Notices would fill the log: of superusers, of tables that exist. */
static void
ignore_notice(void *argument, const char *message)
{
}

PGconn *
connect_server(void)
{
	PGconn	   *db = PQconnectdb("");

	if (PQstatus(db) != CONNECTION_OK)
		fail("%s", PQerrorMessage(db));
	PQsetNoticeProcessor(db, ignore_notice, NULL);
	return db;
}

PGresult *
checked(PGconn *db, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && status != PGRES_PIPELINE_SYNC)
		fail("%s", PQerrorMessage(db));
	return result;
}

void
run(PGconn *db, const char *sql)
{
	PQclear(checked(db, PQexec(db, sql)));
}

/* Runs a file that lies beside the program. */
void
run_file(PGconn *db, const char *program, const char *file)
{
	const char *slash = strrchr(program, '/');
	char		path[4096];
	char	   *sql;
	FILE	   *stream;
	long		length;

	snprintf(path, sizeof(path), "%.*s%s",
			 slash != NULL ? (int) (slash - program + 1) : 0, program, file);
	stream = fopen(path, "r");
	if (stream == NULL)
		fail("%s: %s", path, strerror(errno));
	fseek(stream, 0, SEEK_END);
	length = ftell(stream);
	rewind(stream);
	sql = malloc(length + 1);
	sql[fread(sql, 1, length, stream)] = '\0';
	fclose(stream);
	run(db, sql);
	free(sql);
}

PGresult *
run_with(PGconn *db, const char *sql, int count, const char *const *arguments)
{
	return checked(db, PQexecParams(db, sql, count, NULL, arguments, NULL, NULL, 0));
}

/* The one value of a query, to be freed. */
char *
scalar(PGconn *db, const char *sql, int count, const char *const *arguments)
{
	PGresult   *result = run_with(db, sql, count, arguments);
	char	   *text;

	if (PQntuples(result) != 1)
		fail("not one row: %s", sql);
	text = strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	return text;
}

bool
is_true(PGconn *db, const char *sql)
{
	char	   *answer = scalar(db, sql, 0, NULL);
	bool		is = strcmp(answer, "t") == 0;

	free(answer);
	return is;
}

void
wait_until(PGconn *db, const char *sql)
{
	while (!is_true(db, sql))
		pause_us(POLL_US);
}

/* The text of an array; format has one %ld and is quoted already. */
char *
array_of_numbered(const char *format, long first, long count)
{
	size_t		size = count * (strlen(format) + 24) + 3;
	char	   *text = malloc(size);
	char	   *end = text;

	*end++ = '{';
	for (long i = first; i < first + count; i++)
	{
		if (i > first)
			*end++ = ',';
		end += snprintf(end, text + size - end, format, i);
	}
	strcpy(end, "}");
	return text;
}
