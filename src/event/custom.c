/*
 * custom.c
 *	  What the publishing of an event needs to know of the engine.
 */
#include "postgres.h"

#include "fmgr.h"

#include "engine/handler.h"

PG_FUNCTION_INFO_V1(tasker_running_step);

/*
 * tasker._running_step()
 */
Datum
tasker_running_step(PG_FUNCTION_ARGS)
{
	int64		step_id = handler_running_step();

	if (step_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(step_id);
}
