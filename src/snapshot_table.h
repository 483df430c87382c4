/*
 * snapshot_table.h: the rows of es_snapshot.
 */
#ifndef ES_SNAPSHOT_TABLE_H
#define ES_SNAPSHOT_TABLE_H

#include "postgres.h"

#include "access/genam.h"
#include "executor/tuptable.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* Columns of es_snapshot; the table's definition rules. */
typedef enum EsSnapshotColumnNumber
{
	ES_SNAPSHOT_VERSION = 1, ES_SNAPSHOT_RECORDED_AT, ES_SNAPSHOT_TAKEN_AT,
	ES_SNAPSHOT_EVENT_ID, ES_SNAPSHOT_STREAM, ES_SNAPSHOT_AGGREGATE,
	ES_SNAPSHOT_DEFINITION, ES_SNAPSHOT_STATE, ES_SNAPSHOT_STATE_TEXT,
	ES_SNAPSHOT_NATTS = ES_SNAPSHOT_STATE_TEXT
} EsSnapshotColumnNumber;

/* A snapshot to write. */
typedef struct EsNewSnapshot
{
	text	   *stream_id;
	const char *aggregate;
	const pg_uuid_t *definition;	/* NULL: an application's */
	int64		version;
	TimestampTz recorded_at;
	pg_uuid_t	event_id;
	Jsonb	   *state;			/* one of these, or none for NULL */
	text	   *state_text;
} EsNewSnapshot;

/* A walk along the snapshots of a stream, newest first. */
typedef struct EsSnapshotScan
{
	Relation	rel;
	Relation	key;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} EsSnapshotScan;

extern void EsSnapshotScanBegin(EsSnapshotScan *scan, LOCKMODE lockmode,
								text *stream_id, const char *aggregate,
								int64 limit, Snapshot snapshot);
extern bool EsSnapshotScanNext(EsSnapshotScan *scan);
extern void EsSnapshotScanEnd(EsSnapshotScan *scan);
extern bool EsSnapshotHasDefinition(TupleTableSlot *slot,
									const pg_uuid_t *definition);
extern Datum EsSnapshotColumn(TupleTableSlot *slot, AttrNumber attno);
extern bool EsSnapshotWrite(const EsNewSnapshot *new, bool wait, bool replace);

#endif							/* ES_SNAPSHOT_TABLE_H */
