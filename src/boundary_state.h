/*
 * boundary_state.h: the state that a boundary's events make.
 */
#ifndef ES_BOUNDARY_STATE_H
#define ES_BOUNDARY_STATE_H

#include "postgres.h"

#include "boundary.h"
#include "fold.h"

extern int64 EsBoundaryFold(EsFold *fold, const EsStore *store,
							const EsBoundary *query, Snapshot snapshot);

#endif							/* ES_BOUNDARY_STATE_H */
