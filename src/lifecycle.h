/*
 * lifecycle.h: what is left to see of a stream.
 */
#ifndef ES_LIFECYCLE_H
#define ES_LIFECYCLE_H

#include "postgres.h"

#include "utils/rel.h"
#include "utils/snapshot.h"

extern void EsLifecycleInit(void);
extern void EsStreamCheckOpen(Relation event, text *stream_id);
extern int64 EsStreamFirstShown(Relation event, text *stream_id,
								Snapshot snapshot);

#endif							/* ES_LIFECYCLE_H */
