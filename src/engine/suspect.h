/*
 * suspect.h
 *	  Steps of which an executor has died.
 */
#ifndef TASKER_SUSPECT_H
#define TASKER_SUSPECT_H

#include "postgres.h"

#include "utils/timestamp.h"

/* Writes down what dead executors left; before anything is claimed. */
extern void suspects_judge(void);

extern void suspects_refresh(void);
extern bool suspects_has(int64 task_id, int step_no);
extern bool suspects_look_up(int64 task_id, int step_no, int *crashes, TimestampTz *last_at,
							 bool *overran);
extern void suspects_clear(int64 task_id, int step_no);
extern void suspects_announce(void);

#endif							/* TASKER_SUSPECT_H */
