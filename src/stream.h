/*
 * stream.h: stream names, the lock on a stream and its current version.
 */
#ifndef ES_STREAM_H
#define ES_STREAM_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "catalog.h"

#define ES_MAX_STREAM_ID 1024	/* bytes */
#define ES_MAX_EVENT_TYPE 255	/* bytes */
#define ES_MAX_TAG 255			/* bytes */
#define ES_MAX_TEMPLATE 1024	/* bytes, of what makes a tag */
#define ES_MAX_TAGS 64			/* an event */

/*
 * Our heavyweight locks are advisory locks with a fourth tag field that
 * SQL-level advisory locks (1 and 2) never use.
 */
#define ES_LOCK_STREAM 0xE501
#define ES_LOCK_ANNOUNCEMENT 0xE502
#define ES_LOCK_SNAPSHOT 0xE503
#define ES_LOCK_WORKER 0xE504
#define ES_LOCK_REBUILD 0xE505
#define ES_LOCK_TAG 0xE506
#define ES_LOCK_SUBSCRIPTION 0xE507
#define ES_LOCK_ARCHIVE 0xE508
#define ES_LOCK_EPOCH 0xE50A

/* How long appends may be kept waiting by who waits for the gate. */
#define ES_GATE_PATIENCE 30		/* ms */

/* One lock to take; see EsLockKeys. */
typedef struct EsLockKey
{
	uint16		kind;			/* ES_LOCK_STREAM or ES_LOCK_TAG */
	uint64		hash;			/* of the name */
	LOCKMODE	mode;
} EsLockKey;

/* Where a stream stands. */
typedef struct EsStreamHead
{
	int64		version;		/* its last version; 0 without events */
	TimestampTz recorded_at;	/* of its last event; meaningless at 0 */
} EsStreamHead;

/* What tells one event of a stream from another in its place. */
typedef struct EsEventKey
{
	TimestampTz recorded_at;
	pg_uuid_t	event_id;
} EsEventKey;

/* Enough of an event type's bytes to tell most from each other. */
static inline uint32
EsEventTypeHash(const char *type, int len)
{
	uint64		first = 0;
	uint64		last = 0;

	if (len >= 8)
	{
		memcpy(&first, type, 8);
		memcpy(&last, type + len - 8, 8);
	}
	else
		memcpy(&first, type, len);
	first = (first ^ (last * UINT64CONST(0x9E3779B97F4A7C15)) ^ len) *
		UINT64CONST(0xBF58476D1CE4E5B9);
	return (uint32) (first >> 32);
}

extern void EsStreamInit(void);
extern void EsCheckName(const text *name, int max, const char *what);
extern bool EsNameIsValid(const text *name, int max);
extern void EsCheckStreamId(const text *stream_id);
extern void EsCheckEventType(const text *event_type);
extern void EsCheckTag(const text *tag);
extern int	EsCategoryLength(const char *stream_id, int len);
extern void EsGateEnter(const EsStore *store);
extern void EsGateClose(const EsStore *store);
extern EsLockKey EsLockKeyOf(uint16 kind, const text *name, LOCKMODE mode);
extern void EsLockKeyTag(const EsLockKey *key, LOCKTAG *tag);
extern void EsLockKeys(const EsStore *store, EsLockKey *keys, int nkeys);
extern bool EsLockKeysTry(const EsStore *store, EsLockKey *keys, int nkeys);
extern bool EsGateTryClose(const EsStore *store, int patience);
extern void EsGateCloseGently(const EsStore *store);
extern void EsStreamLock(const EsStore *store, const text *stream_id);
extern EsStreamHead EsStreamHeadRead(Relation event, text *stream_id,
									 Snapshot snapshot);
extern bool EsStreamEventRead(Relation event, text *stream_id, int64 version,
							  Snapshot snapshot, EsEventKey *found);
extern void EsStreamHint(const text *stream_id, int64 version);
extern EsStreamHead EsStreamHeadForAppend(Relation event, Relation stream_key,
										  text *stream_id);

#endif							/* ES_STREAM_H */
