/*
 * archive_check.h: prove the archive's invariants.
 */
#ifndef ES_ARCHIVE_CHECK_H
#define ES_ARCHIVE_CHECK_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

/* Neighbours of one stream in one segment. */
typedef struct EsArchiveGroup
{
	text	   *stream_id;
	int64		first_version;
	int64		last_version;
	int64		first_position;
	int64		last_position;
	TimestampTz first_at;
	TimestampTz last_at;
} EsArchiveGroup;

/* What was found. */
typedef struct EsArchiveCheck
{
	int64		segments;
	int64		events;
	int64		first_position; /* 0: none */
	int64		last_position;
	bool		unfinished;		/* there was no time for all of them */
	int64		problems;
	char	   *first_problem;	/* in words */
	struct Tuplesortstate *groups;	/* by stream and version */
	TupleTableSlot *group_slot;
	bool		group_held;
	EsArchiveGroup group;		/* if held: the next one */
	struct Tuplesortstate *ids;
	TupleTableSlot *id_slot;
	bool		id_held;
	pg_uuid_t	id;				/* if held: the next one */
	pg_uuid_t	last_id;		/* before it */
	bool		has_last_id;
} EsArchiveCheck;

/* What else is done with each archived event; false when there is no time left. */
typedef bool (*EsArchiveVisitor) (TupleTableSlot *slot, void *arg);

extern EsArchiveCheck *EsArchiveCheckWalk(Relation event, Snapshot snapshot,
										  EsArchiveVisitor visit, void *arg);
extern bool EsArchiveCheckNextGroup(EsArchiveCheck *check, const text *up_to);
extern void EsArchiveCheckId(EsArchiveCheck *check, const pg_uuid_t *id);
extern void EsArchiveCheckEnd(EsArchiveCheck *check);

#endif							/* ES_ARCHIVE_CHECK_H */
