/*
 * attempt.h: do something that may fail, and go on if it did.
 */
#ifndef ES_ATTEMPT_H
#define ES_ATTEMPT_H

#include "postgres.h"

/* What is tried; answers whether it is to be kept. */
typedef bool (*EsAttemptWork) (void *arg);

extern bool EsAttempt(EsAttemptWork work, void *arg, ErrorData **error);

#endif							/* ES_ATTEMPT_H */
