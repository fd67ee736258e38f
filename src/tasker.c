/*
 * tasker.c
 *	  Entry of the library.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "engine/worker.h"
#include "registry/dependencies.h"
#include "secret/secret.h"
#include "shared_memory.h"
#include "tasker.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	tasker_define_settings();
	tasker_secret_init();

	/*
	 * pg_upgrade moves the catalogue while nothing else may run, and a library
	 * that is loaded later has neither shared memory nor workers; the functions
	 * that need none of it work all the same.
	 */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	/* Each session would load it, which takes longer than what it then runs. */
	load_file("$libdir/plpgsql", false);

	tasker_shared_memory_init();
	tasker_launcher_register();
	tasker_dependencies_init();
}
