/*
 * rebuild.h: compute read models anew.
 */
#ifndef ES_REBUILD_H
#define ES_REBUILD_H

#include "postgres.h"

extern void EsRebuildClearLeftovers(void);

#endif							/* ES_REBUILD_H */
