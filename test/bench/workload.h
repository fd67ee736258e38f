/*
 * workload.h
 *	  What workloads in C have in common: the protocol with the harness
 *	  (README.md), and the few calls of libpq that they need.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <libpq-fe.h>
#include <stdbool.h>

/* The protocol. */
extern void mark(const char *name);
extern void mark_and_leave(const char *name, PGconn **db);
extern void value(const char *key, double number);
extern void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern void done(void);
extern void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
extern void cannot(const char *reason) __attribute__((noreturn));
extern long number_of(const char *variable, long usual);

/* Time and processor time, in microseconds; the latter with that of children. */
extern double clock_us(void);
extern double cpu_us(void);
extern void pause_us(long us);

/* The server.  Whatever goes wrong ends the workload. */
extern PGconn *connect_server(void);
extern PGresult *checked(PGconn *db, PGresult *result);
extern void run(PGconn *db, const char *sql);
extern void run_file(PGconn *db, const char *program, const char *file);
extern PGresult *run_with(PGconn *db, const char *sql, int count, const char *const *arguments);
extern char *scalar(PGconn *db, const char *sql, int count, const char *const *arguments);
extern bool is_true(PGconn *db, const char *sql);
extern void wait_until(PGconn *db, const char *sql);

/* An array's text, made of so many elements that are all alike but for a number. */
extern char *array_of_numbered(const char *format, long first, long count);

#endif
