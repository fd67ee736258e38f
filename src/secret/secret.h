/*
 * secret.h
 *	  What ${NAME} in a step's handler_config means when the step runs, and how
 *	  its value is kept out of all that is stored or logged.
 */
#ifndef TASKER_SECRET_H
#define TASKER_SECRET_H

#include "postgres.h"

#include "utils/elog.h"
#include "utils/jsonb.h"

/* The secrets that a step's configuration names. */
typedef struct SecretUse SecretUse;

/* Their values, to be hidden wherever they turn up. */
typedef struct SecretMask SecretMask;

extern void tasker_secret_init(void);

/*
 * NULL: the configuration has nothing to be replaced.  What is found out of it
 * lives in the context.
 */
extern SecretUse *secret_use(Jsonb *config, MemoryContext context);

/*
 * Those below read what this process does not have yet, in the SPI connection at
 * hand.
 */

/* Whether one is not set; then the error says which. */
extern bool secret_is_missing(SecretUse *use, const char *step, ErrorData *error);

/* The configuration with the values in it; raises an error where one is not set. */
extern Jsonb *secret_config(SecretUse *use, Jsonb *config, const char *step);

/* The values as secret_config() has just used them, or as they are now. */
extern SecretMask *secret_mask(SecretUse *use, MemoryContext context);
extern SecretMask *secret_mask_now(SecretUse *use, MemoryContext context);

/* Each returns what it got where no value is in it; the last changes the error. */
extern char *secret_hide_in_text(const SecretMask *mask, char *text);
extern Jsonb *secret_hide_in_jsonb(const SecretMask *mask, Jsonb *jsonb);
extern void secret_hide_in_error(const SecretMask *mask, ErrorData *error);

/* From here on the server log shows none of the values; NULL: it may again. */
extern void secret_hide_in_log(const SecretMask *mask);

#endif							/* TASKER_SECRET_H */
