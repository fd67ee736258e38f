/*
 * access.h
 *	  Who calls, and what that role may do.
 */
#ifndef TASKER_ACCESS_H
#define TASKER_ACCESS_H

#include "postgres.h"

#define EVERY_NAMESPACE	"*"

/*
 * The role on whose behalf a function of the extension works: who called the
 * public function through which it was reached, else the current user.
 */
extern Oid	access_caller(void);

/*
 * Around code of others that a private function calls, such as handlers, which
 * act for nobody but themselves; recall gets what access_caller() said.
 */
extern void access_forget_caller(void);
extern void access_recall_caller(Oid role);

/* Whether access is enforced at all. */
extern bool access_is_enforced(void);

/*
 * Whether the role may do what is asked for in a namespace.  NULL: in any
 * namespace; EVERY_NAMESPACE: in all of them.
 */
extern bool access_role_may(Oid role, const char *permission, const char *namespace);

/*
 * The same in steps, for many questions.  What is got for a generation counts
 * as long as that lasts: bits of permissions, which may be joined, and answers.
 */
extern uint64 access_generation(void);
extern uint64 access_permission_bit(const char *permission);
extern bool access_role_has_any(Oid role, uint64 permission_bits, const char *namespace);

/* Raises TK009 where the caller was not granted it in a namespace. */
extern void access_require(const char *permission, const char *namespace);

/* Raises TK009: the caller was not granted it there. */
extern void access_refuse(const char *permission, const char *namespace) pg_attribute_noreturn();

/* Each of these shows the tasks of a namespace. */
#define ACCESS_SEES_TASKS \
	"task:show", "task:index", "workflow_step:show", "workflow_step:index"

/* NULL: there is no such task. */
extern const char *access_namespace_of_task(int64 task_id);

/* Raises TK007 for a "task" or a "step". */
extern void access_refuse_unknown(const char *what, int64 id, bool isnull) pg_attribute_noreturn();

/* Raises TK009, or TK007 where the caller may not see the task or there is none. */
extern void access_require_task(const char *permission, int64 task_id);

/* The same for the caller and the namespace of a task; false where there is none. */
extern bool access_caller_may_in_task(const char *permission, int64 task_id);

#endif							/* TASKER_ACCESS_H */
