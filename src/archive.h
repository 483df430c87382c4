/*
 * archive.h: events that have been moved out of es_event.  The essay is in
 * archive.c.
 */
#ifndef ES_ARCHIVE_H
#define ES_ARCHIVE_H

#include "postgres.h"

#include "access/sdir.h"
#include "common/sha2.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "segment.h"

/* Columns of es_archive_segment. */
typedef enum EsArchiveColumn
{
	ES_ARCHIVE_SEGMENT = 1,
	ES_ARCHIVE_FIRST_POSITION,
	ES_ARCHIVE_LAST_POSITION,
	ES_ARCHIVE_FIRST_RECORDED_AT,
	ES_ARCHIVE_LAST_RECORDED_AT,
	ES_ARCHIVE_EVENTS,
	ES_ARCHIVE_RAW_BYTES,
	ES_ARCHIVE_STORED_BYTES,
	ES_ARCHIVE_FORMAT,
	ES_ARCHIVE_CODEC,
	ES_ARCHIVE_DIGEST,
	ES_ARCHIVE_ARCHIVED_AT,
	ES_ARCHIVE_CONTENT
} EsArchiveColumn;

#define ES_ARCHIVE_NATTS ES_ARCHIVE_CONTENT

/* A row of es_archive_segment. */
typedef struct EsArchiveSegment
{
	int64		segment;
	int64		first_position;
	int64		last_position;
	TimestampTz first_recorded_at;
	TimestampTz last_recorded_at;
	int32		events;
	struct varlena *content;	/* out of line, as a rule; NULL: off-line */
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
} EsArchiveSegment;

/* A walk along archived events; see EsArchiveReadPositions. */
typedef struct EsArchiveRead EsArchiveRead;

extern bool EsArchiveIsEmpty(void);
extern int64 EsArchiveLastPosition(Snapshot snapshot);
extern int64 EsArchiveLastSegment(Snapshot snapshot);
extern bool EsArchiveFindSegment(int64 segment, Snapshot snapshot,
								 EsArchiveSegment *found);
extern bool EsArchiveFindByPosition(int64 position, Snapshot snapshot,
									EsArchiveSegment *found);
extern bool EsArchiveNextSegment(int64 after, Snapshot snapshot,
								 EsArchiveSegment *found);
extern EsSegmentRow **EsArchiveDecodeAll(const EsArchiveSegment *segment, int *nrows);
extern const char *EsArchiveTryDecode(const EsArchiveSegment *segment,
									  bool check_map,
									  EsSegmentRow ***rows, int *nrows);
extern void EsArchiveSetSlot(TupleTableSlot *slot, const EsSegmentRow *row);

/* A stream that has archived events. */
typedef struct EsArchiveStream
{
	text	   *stream_id;
	int64		segment;		/* the first one */
	TimestampTz first_at;		/* when its first event was recorded */
} EsArchiveStream;

/* What is done with each stream of each segment; false: no more of this one. */
typedef bool (*EsArchiveStreamVisitor) (const EsSegmentRow *first, int64 segment,
										void *arg);

extern void EsArchiveVisitStreams(Snapshot snapshot, const text *from,
								  EsArchiveStreamVisitor visit, void *arg);
extern EsArchiveStream *EsArchiveListStreams(Snapshot snapshot, const text *after,
											 const text *category,
											 int64 max_count, int64 *n);
extern EsArchiveRead *EsArchiveReadPositions(TupleDesc desc, Snapshot snapshot,
											 int64 first, int64 last,
											 ScanDirection direction);
extern EsArchiveRead *EsArchiveReadStream(TupleDesc desc, Snapshot snapshot,
										  const text *stream_id, int64 first,
										  int64 last, ScanDirection direction);
extern TupleTableSlot *EsArchiveReadNext(EsArchiveRead *read);
extern void EsArchiveReadEnd(EsArchiveRead *read);
extern bool EsArchiveFindId(const pg_uuid_t *id, int64 after_segment,
							Snapshot snapshot, TupleTableSlot *slot);

#endif							/* ES_ARCHIVE_H */
