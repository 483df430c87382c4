/*
 * insert.h: the way of new events into the table, and who is told of them.
 */
#ifndef ES_INSERT_H
#define ES_INSERT_H

#include "postgres.h"

#include "append.h"

/* Events that are now in the table, one after the other. */
typedef struct EsInserted
{
	Relation	event;			/* es_event, open */
	int			nevents;
	/* the i-th, good until the next call; NULL: another trigger dropped it */
	struct TupleTableSlot *(*fetch) (const struct EsInserted *inserted, int i);
	const EsAppend *append;		/* where they came from, or NULL */
	const int64 *positions;		/* if NULL: where they are */
	struct TupleTableSlot *slot;	/* what fetch answers */
} EsInserted;

/* Who is told of new events, before the append returns. */
typedef struct EsInsertedRoutine
{
	bool		(*wants_events) (void);
	void		(*events_inserted) (const EsInserted *inserted);
} EsInsertedRoutine;

extern void EsInsertEvents(Relation event, EsAppend *append);
extern bool EsIsAssigned(int64 position);
extern void EsInsertedRegister(const EsInsertedRoutine *routine);
extern bool EsInsertedIsWanted(void);
extern void EsInsertedTell(Relation event, const int64 *positions, int n);

#endif							/* ES_INSERT_H */
