/*
 * archiver.h: writing to the archive.
 */
#ifndef ES_ARCHIVER_H
#define ES_ARCHIVER_H

#include "postgres.h"

#include "common/sha2.h"
#include "storage/itemptr.h"

#include "archive.h"

/* A row of es_archive_segment that is to be replaced. */
typedef struct EsArchiverRow
{
	Datum		values[ES_ARCHIVE_NATTS];
	bool		nulls[ES_ARCHIVE_NATTS];
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	ItemPointerData tid;
} EsArchiverRow;

extern void EsArchiverLock(void);
extern EsCodec EsArchiverCodec(const text *name);
extern bool EsArchiverReadRow(int64 segment, EsArchiverRow *row);
extern void EsArchiverReplaceRow(EsArchiverRow *row);

#endif							/* ES_ARCHIVER_H */
