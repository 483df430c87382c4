/*
 * category.h: which aggregate folds a stream, where none is named.
 */
#ifndef ES_CATEGORY_H
#define ES_CATEGORY_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "aggregate.h"

extern bool EsAggregatesExist(void);
extern List *EsAggregatesOfStream(const text *stream_id);
extern char *EsAggregateName(const text *name, const text *stream_id);

#endif							/* ES_CATEGORY_H */
