/*
 * archive_key.h: in which segments a stream, or an event id, may be found.
 */
#ifndef ES_ARCHIVE_KEY_H
#define ES_ARCHIVE_KEY_H

#include "postgres.h"

#include "utils/snapshot.h"
#include "utils/uuid.h"

/* What is looked for. */
typedef enum EsKeyKind
{
	ES_KEY_STREAM = 's',
	ES_KEY_ID = 'i'
} EsKeyKind;

/* The keys of one kind that one segment has. */
typedef struct EsKeySet
{
	EsKeyKind	kind;
	uint32	   *hashes;
	int			n;
	pg_uuid_t	least;			/* of ids */
	pg_uuid_t	greatest;
} EsKeySet;

extern uint32 EsKeyHash(const void *bytes, Size len);
extern void EsKeyWrite(EsKeySet *set, int64 segment);
extern int	EsKeyFind(EsKeyKind kind, uint32 hash, const pg_uuid_t *id,
					  Snapshot snapshot, int64 **segments);
extern void EsKeySum(EsKeyKind kind, Snapshot snapshot, int64 *entries,
					 uint64 *sum);
extern uint64 EsKeyEntryHash(uint32 hash, int64 segment);

#endif							/* ES_ARCHIVE_KEY_H */
