/*
 * apply.h: check and run the handlers of projections.
 */
#ifndef ES_APPLY_H
#define ES_APPLY_H

#include "projection.h"

extern void EsHandlerCheck(EsProjection *projection, const char *event_type,
						   const char *sql);
extern void EsProjectionCompile(EsProjection *projection, Relation event);

#endif							/* ES_APPLY_H */
