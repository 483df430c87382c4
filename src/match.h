/*
 * match.h: queries over event types and tags.
 */
#ifndef ES_MATCH_H
#define ES_MATCH_H

#include "postgres.h"

#include "access/sdir.h"
#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "catalog.h"

#define ES_MAX_QUERY_ITEMS 256
#define ES_MAX_QUERY_TYPES 256	/* an item */

/* Matches an event of one of the types that has all of the tags. */
typedef struct EsBoundaryItem
{
	text	  **types;
	int			ntypes;			/* 0: any type */
	text	  **tags;			/* sorted, each once */
	int			ntags;			/* 0: any tags */
} EsBoundaryItem;

/* Matches what any of its items matches. */
typedef struct EsBoundary
{
	EsBoundaryItem *items;
	int			nitems;			/* at least 1 */
	bool		broad;			/* some item has no tags */
} EsBoundary;

/* A walk along the events that match; see EsMatchBegin. */
typedef struct EsMatchScan EsMatchScan;

extern int	EsNamesMakeSet(text **names, int n);
extern bool EsNamesInclude(text **names, int n, text *name);
extern EsBoundary *EsBoundaryParse(Jsonb *json);
extern bool EsBoundaryMatches(const EsBoundary *query, text *event_type,
							  ArrayType *tags);

extern EsMatchScan *EsMatchBegin(Relation event, const EsStore *store,
								 const EsBoundary *query, Snapshot snapshot,
								 int64 first, int64 last,
								 ScanDirection direction);
extern TupleTableSlot *EsMatchNext(EsMatchScan *scan, int64 *position, int *item);
extern void EsMatchEnd(EsMatchScan *scan);

#endif							/* ES_MATCH_H */
