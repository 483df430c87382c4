/*
 * segment.h: some thousand events, column by column and compressed.
 */
#ifndef ES_SEGMENT_H
#define ES_SEGMENT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* How blocks are compressed; the numbers are stored. */
typedef enum EsCodec
{
	ES_CODEC_NONE = 0,
	ES_CODEC_PGLZ = 1,
	ES_CODEC_LZ4 = 2,
	ES_CODEC_ZSTD = 3
} EsCodec;

/* The columns of a row that have a variable length. */
typedef enum EsSegmentText
{
	ES_SEGMENT_STREAM,
	ES_SEGMENT_TYPE,
	ES_SEGMENT_DATA,
	ES_SEGMENT_METADATA,
	ES_SEGMENT_TAGS,
	ES_SEGMENT_TEXTS			/* their number */
} EsSegmentText;

/* One event. */
typedef struct EsSegmentRow
{
	int64		position;
	int64		version;
	TimestampTz recorded_at;
	pg_uuid_t	event_id;
	int32		type_version;
	struct varlena *texts[ES_SEGMENT_TEXTS];	/* plain; NULL: null */
} EsSegmentRow;

/* A block as the directory describes it. */
typedef struct EsSegmentBlock
{
	uint32		offset;			/* in the segment */
	uint32		stored;			/* bytes there */
	uint32		raw;			/* bytes when taken apart */
	uint32		nrows;
	uint32		crc;			/* of what is stored */
	uint32		name;			/* where its first stream's id is */
	uint32		name_len;
	uint32		pad;
	int64		first_version;	/* of its first row */
} EsSegmentBlock;

/* What a segment begins with; the blocks' descriptions follow, then names. */
typedef struct EsSegmentHeader
{
	uint32		magic;
	uint16		format;
	uint16		codec;
	uint32		nevents;
	uint32		nblocks;
	uint32		directory;		/* bytes of header, descriptions and names */
	uint32		crc;			/* of these, with 0 here */
	EsSegmentBlock map;			/* which block holds which position */
} EsSegmentHeader;

#define ES_SEGMENT_PEEK 8192	/* bytes that usually hold the directory */

extern bool EsCodecByName(const char *name, EsCodec *codec);
extern const char *EsCodecName(EsCodec codec);
extern bool EsCodecIsAvailable(EsCodec codec);
extern EsCodec EsCodecBest(void);
extern Size EsCodecBound(EsCodec codec, Size raw);
extern Size EsCodecCompress(EsCodec codec, const char *source, Size len,
							char *target, Size size);
extern bool EsCodecDecompress(EsCodec codec, const char *source, Size len,
							  char *target, Size raw);

extern int	EsSegmentRowCompare(const void *a, const void *b);
extern bytea *EsSegmentEncode(const EsSegmentRow *rows, int nrows, EsCodec codec,
							  int64 *raw_bytes);
extern const char *EsSegmentCheck(const char *bytes, Size len, Size total);
extern const EsSegmentBlock *EsSegmentBlocks(const EsSegmentHeader *header);
extern const char *EsSegmentDecode(const EsSegmentHeader *header,
								   const EsSegmentBlock *block,
								   const char *stored, EsSegmentRow **rows);
extern const char *EsSegmentCheckMap(const EsSegmentHeader *header,
									 const char *stored,
									 EsSegmentRow *const *rows);
extern const char *EsSegmentFindPosition(const EsSegmentHeader *header,
										 const char *stored, int64 position,
										 int *block);

#endif							/* ES_SEGMENT_H */
