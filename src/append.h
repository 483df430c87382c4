/*
 * append.h: give new events their place and put them into the store.
 */
#ifndef ES_APPEND_H
#define ES_APPEND_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "catalog.h"

/* Expected versions with a meaning of their own; others are exact. */
#define ES_VERSION_ANY (-1)		/* append whatever is there */
#define ES_VERSION_EXISTS (-2)	/* the stream must have events */
#define ES_VERSION_NONE 0		/* it must have none */

/* One new event: what the caller gave, and what the store assigned. */
typedef struct EsNewEvent
{
	text	   *event_type;
	Jsonb	   *data;
	Jsonb	   *metadata;		/* NULL: none */
	ArrayType  *tags;			/* text[], checked; NULL: none */
	int32		type_version;	/* of the event type; 0: the newest declared */
	bool		has_id;			/* event_id was given by the caller */
	pg_uuid_t	event_id;
	int64		position;		/* assigned */
	int64		version;		/* assigned */
} EsNewEvent;

/* Events that go to one stream together. */
typedef struct EsAppend
{
	text	   *stream_id;		/* checked */
	int64		expected_version;
	EsNewEvent *events;
	int			nevents;		/* at least 1 */
	TimestampTz recorded_at;	/* assigned, one for all */
	bool		locked;			/* the caller holds all locks already, has
								 * applied the types, and knows that this is
								 * no retry */
	bool		own_stream;		/* the stream is named after a new id: no other
								 * append can know it, so it needs no lock */
	int64		archived;		/* last segment of the archive when the ids
								 * were looked for */
} EsAppend;

extern bool EsAppendHasTags(const EsAppend *append);
extern void EsAssign(Relation event, const EsStore *store, EsAppend *append);
extern int64 EsAppendEvents(EsAppend *append);
extern void EsNoteLastPosition(int64 position);
extern int64 EsLastPosition(void);

#endif							/* ES_APPEND_H */
