/*
 * flight.h
 *	  Remembers beyond a crash what an executor or the deliverer was running.
 */
#ifndef TASKER_FLIGHT_H
#define TASKER_FLIGHT_H

#include "postgres.h"

#include "tasker.h"

typedef struct FlightSuspect
{
	int			place;			/* in the file */
	int64		task_id;		/* 0: none; the batch was being saved */
	int16		step_no;
	bool		overran;		/* did not crash: outlived its timeout */
	/* Of a deliverer: the event. */
	int32		subscriber_id;
	int64		event_id;
	int64		row_id;
} FlightSuspect;

/* What flight_attach() and flight_next_suspect() take for the deliverer. */
#define FLIGHT_DELIVERER	TASKER_MAX_EXECUTORS

extern void flight_open(void);	/* once a process, before the others */

/*
 * What a dead executor of this database left, or a dead deliverer; false:
 * nothing, or nothing more.
 */
extern bool flight_next_suspect(bool of_deliverer, FlightSuspect *suspect);

/* When the suspect is dealt with, and that is committed. */
extern void flight_forget(const FlightSuspect *suspect);

/* Takes an entry for this executor, or the deliverer. */
extern void flight_attach(int number);

extern void flight_note_running(int64 task_id, int step_no);
extern void flight_note_saving(int64 task_id, int step_no);
extern void flight_note_delivering(int32 subscriber_id, int64 event_id, int64 row_id);
extern void flight_note_idle(void);
extern void flight_mark_overran(void);

#endif							/* TASKER_FLIGHT_H */
