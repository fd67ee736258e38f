/*
 * flight.h
 *	  Remembers beyond a crash what an executor was running.
 */
#ifndef TASKER_FLIGHT_H
#define TASKER_FLIGHT_H

#include "postgres.h"

typedef struct FlightSuspect
{
	int64		task_id;		/* 0: none; the batch was being saved */
	int16		step_no;
	bool		overran;		/* did not crash: outlived its timeout */
} FlightSuspect;

/* Takes this executor's entry; what earlier ones left comes back as suspects. */
extern int	flight_attach(int number, FlightSuspect *suspects, int space);

/* When the suspects are dealt with, and that is committed. */
extern void flight_forget_suspects(int number);

extern void flight_note_running(int64 task_id, int step_no);
extern void flight_note_saving(int64 task_id, int step_no);
extern void flight_note_idle(void);
extern void flight_mark_overran(void);

#endif							/* TASKER_FLIGHT_H */
