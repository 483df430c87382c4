/*
 * segment.c: how archived events are written, and read again.
 *
 * A segment holds events in the order of stream and version, so that those of
 * one stream lie together.  It is cut into blocks of some ten thousand bytes,
 * each compressed by itself: who wants one stream takes apart the blocks that
 * have it and no others.  Inside a block each column lies by itself, numbers
 * as differences from the row before, which is what makes them small.  A
 * directory in front says where the blocks are and what streams they begin
 * with; a map behind them says which block holds which position.
 *
 * An id that the store made is derived from the time, but for its last eight
 * bytes; so only these are stored, and by how much it is off.
 *
 * In a block taken apart, texts and documents lie as plain values with their
 * length in front, aligned: a reader is handed pointers into it.  This is the
 * memory of this kind of machine.  A segment that is to go to another one is
 * exported (export.c); the magic number tells a wrong byte order.
 *
 * What is read may be damaged.  Checksums find that; besides, nothing is
 * believed that would lead outside of the bytes that are there.  The reading
 * functions answer what is wrong in words, or NULL.
 */
#include "postgres.h"

#include <limits.h>

#include "common/pg_lzcompress.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#ifdef ES_WITH_LZ4
#include <lz4.h>
#endif
#ifdef ES_WITH_ZSTD
#include <zstd.h>
#endif

#include "compat.h"
#include "number.h"
#include "segment.h"

#define ES_SEGMENT_MAGIC 0x47535345	/* "ESSG" */
#define ES_SEGMENT_FORMAT 1
#define ES_ZSTD_LEVEL 6			/* decompresses as fast as any other */
#define ES_BLOCK_BYTES 32768	/* a block is cut when it is this large */
#define ES_BLOCK_ROWS 1024		/* or has so many rows */
#define ES_QUARTERS 4000		/* parts of a millisecond in an id we made */

/* ----- codecs ----- */

static const struct
{
	const char *name;
	EsCodec		codec;
	bool		available;
}			codecs[] = {
	{"none", ES_CODEC_NONE, true},
	{"pglz", ES_CODEC_PGLZ, true},
#ifdef ES_WITH_LZ4
	{"lz4", ES_CODEC_LZ4, true},
#else
	{"lz4", ES_CODEC_LZ4, false},
#endif
#ifdef ES_WITH_ZSTD
	{"zstd", ES_CODEC_ZSTD, true}
#else
	{"zstd", ES_CODEC_ZSTD, false}
#endif
};

/* False for a name that no codec has. */
bool
EsCodecByName(const char *name, EsCodec *codec)
{
	for (size_t i = 0; i < lengthof(codecs); i++)
		if (strcmp(codecs[i].name, name) == 0)
		{
			*codec = codecs[i].codec;
			return true;
		}
	return false;
}

const char *
EsCodecName(EsCodec codec)
{
	return codec < lengthof(codecs) ? codecs[codec].name : "unknown";
}

/* Can this build read and write it? */
bool
EsCodecIsAvailable(EsCodec codec)
{
	return codec < lengthof(codecs) && codecs[codec].available;
}

/* The one that packs best of those that this build has. */
EsCodec
EsCodecBest(void)
{
	EsCodec		best = ES_CODEC_PGLZ;

	for (size_t i = 0; i < lengthof(codecs); i++)
		if (codecs[i].available)
			best = codecs[i].codec;
	return best;
}

/* Bytes that compressing so many may take. */
Size
EsCodecBound(EsCodec codec, Size raw)
{
	switch (codec)
	{
#ifdef ES_WITH_LZ4
		case ES_CODEC_LZ4:
			return LZ4_compressBound((int) raw);
#endif
#ifdef ES_WITH_ZSTD
		case ES_CODEC_ZSTD:
			return ZSTD_compressBound(raw);
#endif
		default:
			return PGLZ_MAX_OUTPUT(raw);
	}
}

/* Bytes written to target; 0 where that is not less than there were. */
Size
EsCodecCompress(EsCodec codec, const char *source, Size len, char *target, Size size)
{
	int64		packed = 0;

	switch (codec)
	{
		case ES_CODEC_PGLZ:
			if (len < INT_MAX)
				packed = pglz_compress(source, (int32) len, target, PGLZ_strategy_always);
			break;
#ifdef ES_WITH_LZ4
		case ES_CODEC_LZ4:
			if (len < LZ4_MAX_INPUT_SIZE)
				packed = LZ4_compress_default(source, target, (int) len,
											  (int) Min(size, (Size) INT_MAX));
			break;
#endif
#ifdef ES_WITH_ZSTD
		case ES_CODEC_ZSTD:
			{
				size_t		result = ZSTD_compress(target, size, source, len,
												   ES_ZSTD_LEVEL);

				packed = ZSTD_isError(result) ? 0 : (int64) result;
				break;
			}
#endif
		default:
			break;
	}
	return packed <= 0 || (Size) packed >= len ? 0 : (Size) packed;
}

#ifdef ES_WITH_ZSTD
/* One context for the life of the process: making it costs more than a block. */
static bool
decompress_zstd(const char *source, Size len, char *target, Size raw)
{
	static ZSTD_DCtx *context = NULL;

	if (context == NULL)
		context = ZSTD_createDCtx();
	if (context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return ZSTD_decompressDCtx(context, target, raw, source, len) == raw;
}
#endif

/* True if it is exactly raw bytes, now in target. */
bool
EsCodecDecompress(EsCodec codec, const char *source, Size len, char *target, Size raw)
{
	if (len == raw)				/* did not get smaller, and was left as it is */
	{
		memcpy(target, source, raw);
		return true;
	}
	switch (codec)
	{
		case ES_CODEC_PGLZ:
			return len < INT_MAX && raw < INT_MAX &&
				pglz_decompress(source, (int32) len, target, (int32) raw, true) == (int32) raw;
#ifdef ES_WITH_LZ4
		case ES_CODEC_LZ4:
			return len < INT_MAX && raw < INT_MAX &&
				LZ4_decompress_safe(source, target, (int) len, (int) raw) == (int) raw;
#endif
#ifdef ES_WITH_ZSTD
		case ES_CODEC_ZSTD:
			return decompress_zstd(source, len, target, raw);
#endif
		default:
			return false;
	}
}

/* ----- ids ----- */

/* When an id was made, in the unit of the store's ids, if it is one of these. */
static bool
id_quarters(const pg_uuid_t *id, uint64 *quarters)
{
	uint64		ms = 0;
	uint32		fraction = ((uint32) (id->data[6] & 0x0F) << 8) | id->data[7];

	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | id->data[i];
	*quarters = ms * ES_QUARTERS + fraction;
	return (id->data[6] >> 4) == 7 && fraction < ES_QUARTERS;
}

/* A time in that unit; for odd times whatever comes out, but always the same. */
static uint64
time_quarters(TimestampTz at)
{
	return ((uint64) at + (uint64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) * 4;
}

static void
put_id(StringInfo numbers, StringInfo bytes, const EsSegmentRow *row)
{
	uint64		quarters;

	if (id_quarters(&row->event_id, &quarters))
	{
		uint64		off = EsFoldSign(quarters - time_quarters(row->recorded_at));

		if (off < (UINT64CONST(1) << 48))
		{
			EsPutNumber(numbers, off + 1);
			appendBinaryStringInfo(bytes, (const char *) row->event_id.data + 8, 8);
			return;
		}
	}
	EsPutNumber(numbers, 0);
	appendBinaryStringInfo(bytes, (const char *) row->event_id.data, UUID_LEN);
}

/* The first half of an id, from how far it is off its time. */
static void
restore_id(EsSegmentRow *row, uint64 off)
{
	uint64		quarters = time_quarters(row->recorded_at) + EsUnfoldSign(off - 1);
	uint64		ms = quarters / ES_QUARTERS;
	uint32		fraction = (uint32) (quarters % ES_QUARTERS);

	for (int b = 0; b < 6; b++)
		row->event_id.data[b] = (unsigned char) (ms >> (8 * (5 - b)));
	row->event_id.data[6] = (unsigned char) (0x70 | (fraction >> 8));
	row->event_id.data[7] = (unsigned char) fraction;
}

/* ----- writing ----- */

static int
compare_texts(const struct varlena *a, const struct varlena *b)
{
	Size		alen = VARSIZE_ANY_EXHDR(a);
	Size		blen = VARSIZE_ANY_EXHDR(b);
	int			order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(alen, blen));

	return order != 0 ? order : (alen > blen) - (alen < blen);
}

/* By stream, then by version. */
int
EsSegmentRowCompare(const void *a, const void *b)
{
	const EsSegmentRow *left = a;
	const EsSegmentRow *right = b;
	int			order = compare_texts(left->texts[ES_SEGMENT_STREAM],
									  right->texts[ES_SEGMENT_STREAM]);

	return order != 0 ? order :
		(left->version > right->version) - (left->version < right->version);
}

static void
put_text(StringInfo out, const struct varlena *value)
{
	static const char zeros[4] = {0};

	appendBinaryStringInfo(out, (const char *) value, VARSIZE(value));
	appendBinaryStringInfo(out, zeros, INTALIGN(out->len) - out->len);
}

/* The columns that have numbers only. */
static void
put_numbers(StringInfo out, const EsSegmentRow *rows, int n)
{
	for (int i = 0; i < n; i++)
		EsPutNumber(out, EsFoldSign(rows[i].position - (i == 0 ? 0 : rows[i - 1].position)));
	for (int i = 0; i < n; i++)
		EsPutNumber(out, EsFoldSign(rows[i].version - (i == 0 ? 0 : rows[i - 1].version + 1)));
	for (int i = 0; i < n; i++)
		EsPutNumber(out, EsFoldSign((uint64) rows[i].recorded_at -
								  (i == 0 ? 0 : (uint64) rows[i - 1].recorded_at)));
	for (int i = 0; i < n; i++)
		EsPutNumber(out, (uint32) rows[i].type_version);
	for (int i = 0; i < n; i++)
		EsPutNumber(out, (rows[i].texts[ES_SEGMENT_METADATA] != NULL ? 1 : 0) |
				   (rows[i].texts[ES_SEGMENT_TAGS] != NULL ? 2 : 0));
}

/*
 * Streams as runs of rows, types as numbers of a list; what they are called
 * goes to the texts.
 */
static void
put_names(StringInfo out, StringInfo texts, const EsSegmentRow *rows, int n)
{
	const struct varlena **types = palloc(n * sizeof(struct varlena *));
	int			ntypes = 0;

	for (int i = 0, run; i < n; i += run)
	{
		for (run = 1; i + run < n &&
			 compare_texts(rows[i].texts[ES_SEGMENT_STREAM],
						   rows[i + run].texts[ES_SEGMENT_STREAM]) == 0;)
			run++;
		EsPutNumber(out, run);
		put_text(texts, rows[i].texts[ES_SEGMENT_STREAM]);
	}
	for (int i = 0; i < n; i++)
	{
		int			code = 0;

		while (code < ntypes &&
			   compare_texts(types[code], rows[i].texts[ES_SEGMENT_TYPE]) != 0)
			code++;
		EsPutNumber(out, code);
		if (code < ntypes)
			continue;
		types[ntypes++] = rows[i].texts[ES_SEGMENT_TYPE];
		put_text(texts, rows[i].texts[ES_SEGMENT_TYPE]);
	}
	pfree(types);
}

/* A block as it is before compression. */
static void
make_block(StringInfo out, const EsSegmentRow *rows, int n)
{
	StringInfoData ids;
	StringInfoData texts;

	initStringInfo(&ids);
	initStringInfo(&texts);
	resetStringInfo(out);
	put_numbers(out, rows, n);
	for (int i = 0; i < n; i++)
		put_id(out, &ids, &rows[i]);
	put_names(out, &texts, rows, n);
	appendBinaryStringInfo(out, ids.data, ids.len);
	while (out->len % ALIGNOF_INT != 0)
		appendStringInfoChar(out, '\0');
	appendBinaryStringInfo(out, texts.data, texts.len);
	for (int column = ES_SEGMENT_DATA; column < ES_SEGMENT_TEXTS; column++)
		for (int i = 0; i < n; i++)
			if (rows[i].texts[column] != NULL)
				put_text(out, rows[i].texts[column]);
	pfree(ids.data);
	pfree(texts.data);
}

/* How many of the rows make the next block. */
static int
rows_of_block(const EsSegmentRow *rows, int n)
{
	Size		bytes = 0;
	int			i;

	for (i = 0; i < Min(n, ES_BLOCK_ROWS) && bytes < ES_BLOCK_BYTES; i++)
		for (int column = ES_SEGMENT_DATA; column < ES_SEGMENT_TEXTS; column++)
			if (rows[i].texts[column] != NULL)
				bytes += VARSIZE(rows[i].texts[column]);
	return i;
}

/* Compress raw bytes to the end of the segment, and describe that. */
static void
put_block(StringInfo out, EsCodec codec, StringInfo raw, EsSegmentBlock *block)
{
	Size		bound = EsCodecBound(codec, raw->len);
	pg_crc32c	crc;

	block->offset = out->len;
	block->raw = raw->len;
	enlargeStringInfo(out, (int) Max(bound, (Size) raw->len));
	block->stored = (uint32) EsCodecCompress(codec, raw->data, raw->len,
											 out->data + out->len, bound);
	if (block->stored == 0)
	{
		memcpy(out->data + out->len, raw->data, raw->len);
		block->stored = raw->len;
	}
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, out->data + out->len, block->stored);
	FIN_CRC32C(crc);
	block->crc = crc;
	out->len += block->stored;
}

/* A position and the block it is in. */
typedef struct Place
{
	int64		position;
	uint32		block;
} Place;

static int
compare_places(const void *a, const void *b)
{
	const Place *left = a;
	const Place *right = b;

	return (left->position > right->position) - (left->position < right->position);
}

static void
make_map(StringInfo raw, Place *places, int n)
{
	initStringInfo(raw);
	qsort(places, n, sizeof(Place), compare_places);
	for (int i = 0; i < n; i++)
		EsPutNumber(raw, places[i].position - (i == 0 ? 0 : places[i - 1].position));
	for (int i = 0; i < n; i++)
		EsPutNumber(raw, places[i].block);
}

static void
put_map(StringInfo out, EsCodec codec, Place *places, int n, EsSegmentBlock *map)
{
	StringInfoData raw;

	make_map(&raw, places, n);
	put_block(out, codec, &raw, map);
	map->nrows = n;
	pfree(raw.data);
}

static uint32
directory_crc(const char *bytes, Size len)
{
	EsSegmentHeader header;
	pg_crc32c	crc;

	memcpy(&header, bytes, sizeof(header));
	header.crc = 0;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &header, sizeof(header));
	COMP_CRC32C(crc, bytes + sizeof(header), len - sizeof(header));
	FIN_CRC32C(crc);
	return crc;
}

/* Describe the blocks: how many rows each has, and what stream it begins with. */
static EsSegmentBlock *
plan_blocks(const EsSegmentRow *rows, int nrows, EsSegmentHeader *header,
			StringInfo names)
{
	EsSegmentBlock *blocks = palloc0(Max(nrows, 1) * sizeof(EsSegmentBlock));

	for (int done = 0; done < nrows; done += blocks[header->nblocks++].nrows)
	{
		EsSegmentBlock *block = &blocks[header->nblocks];
		const struct varlena *name = rows[done].texts[ES_SEGMENT_STREAM];

		block->nrows = rows_of_block(rows + done, nrows - done);
		block->first_version = rows[done].version;
		block->name = names->len;
		block->name_len = VARSIZE_ANY_EXHDR(name);
		appendBinaryStringInfo(names, VARDATA_ANY(name), block->name_len);
	}
	for (uint32 i = 0; i < header->nblocks; i++)
		blocks[i].name += sizeof(EsSegmentHeader) + header->nblocks * sizeof(EsSegmentBlock);
	header->directory = sizeof(EsSegmentHeader) +
		header->nblocks * sizeof(EsSegmentBlock) + names->len;
	return blocks;
}

/*
 * Write rows, which are in the order of stream and version, as a segment in
 * the current memory context.  *raw_bytes is what its blocks were before they
 * were compressed.  The caller sees to it that this fits into a datum.
 */
bytea *
EsSegmentEncode(const EsSegmentRow *rows, int nrows, EsCodec codec, int64 *raw_bytes)
{
	EsSegmentHeader header = {.magic = ES_SEGMENT_MAGIC,.format = ES_SEGMENT_FORMAT,
	.codec = codec,.nevents = nrows};
	StringInfoData names;
	StringInfoData raw;
	StringInfoData out;
	Place	   *places = palloc_extended(Max(nrows, 1) * sizeof(Place), MCXT_ALLOC_HUGE);
	EsSegmentBlock *blocks;
	int			done = 0;

	initStringInfo(&names);
	initStringInfo(&raw);
	initStringInfo(&out);
	blocks = plan_blocks(rows, nrows, &header, &names);
	enlargeStringInfo(&out, VARHDRSZ + header.directory);
	out.len = VARHDRSZ + header.directory;
	*raw_bytes = header.directory;
	for (uint32 i = 0; i < header.nblocks; i++)
	{
		CHECK_FOR_INTERRUPTS();
		make_block(&raw, rows + done, blocks[i].nrows);
		put_block(&out, codec, &raw, &blocks[i]);
		blocks[i].offset -= VARHDRSZ;
		*raw_bytes += raw.len;
		for (uint32 row = 0; row < blocks[i].nrows; row++, done++)
			places[done] = (Place) {rows[done].position, i};
	}
	put_map(&out, codec, places, nrows, &header.map);
	header.map.offset -= VARHDRSZ;
	*raw_bytes += header.map.raw;
	memcpy(out.data + VARHDRSZ, &header, sizeof(header));
	memcpy(out.data + VARHDRSZ + sizeof(header), blocks,
		   header.nblocks * sizeof(EsSegmentBlock));
	memcpy(out.data + VARHDRSZ + header.directory - names.len, names.data, names.len);
	header.crc = directory_crc(out.data + VARHDRSZ, header.directory);
	memcpy(out.data + VARHDRSZ, &header, sizeof(header));
	SET_VARSIZE(out.data, out.len);
	pfree(names.data);
	pfree(raw.data);
	pfree(blocks);
	pfree(places);
	return (bytea *) out.data;
}

/* ----- reading ----- */

static bool
block_is_sound(const EsSegmentBlock *block, const EsSegmentHeader *header, Size total)
{
	return block->offset >= header->directory && block->offset <= total &&
		block->stored <= total - block->offset &&
		block->stored <= block->raw && block->raw < MaxAllocSize &&
		block->nrows <= header->nevents &&
		(uint64) block->name + block->name_len <= header->directory;
}

/*
 * Are these len bytes, at least the header, the beginning of a segment of
 * total bytes?  If the directory is longer than len only the header is
 * checked; come again with more.
 */
const char *
EsSegmentCheck(const char *bytes, Size len, Size total)
{
	const EsSegmentHeader *header = (const EsSegmentHeader *) bytes;
	const EsSegmentBlock *blocks;
	uint64		nrows = 0;

	if (len < sizeof(EsSegmentHeader))
		return "it is too short";
	if (header->magic != ES_SEGMENT_MAGIC)
		return "it does not begin like a segment of this kind of machine";
	if (header->format != ES_SEGMENT_FORMAT)
		return "its format is of another version";
	if (header->directory > total || header->directory < sizeof(EsSegmentHeader) ||
		header->nblocks > (header->directory - sizeof(EsSegmentHeader)) / sizeof(EsSegmentBlock))
		return "its directory does not fit";
	if (header->directory > len)
		return NULL;
	if (directory_crc(bytes, header->directory) != header->crc)
		return "the checksum of its directory is wrong";
	blocks = EsSegmentBlocks(header);
	for (uint32 i = 0; i < header->nblocks; i++)
	{
		if (!block_is_sound(&blocks[i], header, total))
			return "a block does not fit";
		nrows += blocks[i].nrows;
	}
	if (nrows != header->nevents || !block_is_sound(&header->map, header, total))
		return "the number of its events is wrong";
	return NULL;
}

/* The descriptions of the blocks, behind a directory that was checked. */
const EsSegmentBlock *
EsSegmentBlocks(const EsSegmentHeader *header)
{
	return (const EsSegmentBlock *) (header + 1);
}

/* Check and decompress a block into new memory; NULL if that cannot be. */
static char *
unpack_block(const EsSegmentHeader *header, const EsSegmentBlock *block,
			 const char *stored)
{
	char	   *raw;
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, stored, block->stored);
	FIN_CRC32C(crc);
	if (crc != block->crc)
		return NULL;
	raw = palloc(Max(block->raw, 1));
	return EsCodecDecompress(header->codec, stored, block->stored, raw, block->raw) ?
		raw : NULL;
}

static void
get_numbers(EsInput *in, EsSegmentRow *rows, int n, char *present)
{
	uint64		last = 0;

	for (int i = 0; i < n; i++)
		rows[i].position = last += EsUnfoldSign(EsGetNumber(in));
	last = UINT64_MAX;			/* the version before the first row */
	for (int i = 0; i < n; i++)
		rows[i].version = last += EsUnfoldSign(EsGetNumber(in)) + 1;
	last = 0;
	for (int i = 0; i < n; i++)
		rows[i].recorded_at = (TimestampTz) (last += EsUnfoldSign(EsGetNumber(in)));
	for (int i = 0; i < n; i++)
		rows[i].type_version = (int32) EsGetNumber(in);
	for (int i = 0; i < n; i++)
		present[i] = (char) EsGetNumber(in);
}

/* One plain value, aligned, of those behind the numbers. */
static struct varlena *
get_text(EsInput *in, const char *start)
{
	Size		offset = INTALIGN(in->at - start);
	struct varlena *value = (struct varlena *) (start + offset);

	in->at = start + offset;
	if (in->bad || in->at > in->end || in->end - in->at < VARHDRSZ ||
		!VARATT_IS_4B_U(value) || VARSIZE(value) < VARHDRSZ ||
		EsGetBytes(in, VARSIZE(value)) == NULL)
	{
		in->bad = true;
		return NULL;
	}
	return value;
}

/* What the rows' streams and types are called: runs and codes come first. */
static void
get_names(EsInput *texts, const char *start, EsSegmentRow *rows, int n,
		  const uint32 *runs, const uint32 *codes)
{
	struct varlena **types = palloc0(n * sizeof(struct varlena *));
	uint32		ntypes = 0;

	for (int i = 0, run = 0; i < n && !texts->bad; run++)
	{
		struct varlena *name = get_text(texts, start);

		for (uint32 k = 0; k < runs[run]; k++)
			rows[i++].texts[ES_SEGMENT_STREAM] = name;
	}
	for (int i = 0; i < n && !texts->bad; i++)
	{
		if (codes[i] > ntypes)
			texts->bad = true;
		else if (codes[i] == ntypes)
			types[ntypes++] = get_text(texts, start);
		if (!texts->bad)
			rows[i].texts[ES_SEGMENT_TYPE] = types[codes[i]];
	}
	pfree(types);
}

/* Take apart what put_names wrote about the runs and types. */
static void
get_codes(EsInput *in, int n, uint32 *runs, uint32 *codes)
{
	for (int i = 0, run = 0; i < n && !in->bad; run++)
	{
		uint64		rows = EsGetNumber(in);

		if (rows == 0 || rows > (uint64) (n - i))
			in->bad = true;
		runs[run] = (uint32) rows;
		i += (int) rows;
	}
	for (int i = 0; i < n; i++)
	{
		uint64		code = EsGetNumber(in);

		codes[i] = (uint32) Min(code, PG_UINT32_MAX);
	}
}

static void
get_ids(EsInput *in, EsSegmentRow *rows, int n, const uint64 *offs)
{
	for (int i = 0; i < n; i++)
	{
		Size		len = offs[i] == 0 ? UUID_LEN : 8;
		const char *bytes = EsGetBytes(in, len);

		if (bytes == NULL)
			return;
		memcpy(rows[i].event_id.data + UUID_LEN - len, bytes, len);
		if (offs[i] != 0)
			restore_id(&rows[i], offs[i]);
	}
}

static void
get_rows(EsInput *in, EsSegmentRow *rows, int n)
{
	const char *start = in->at;
	char	   *present = palloc0(n);
	uint64	   *offs = palloc(n * sizeof(uint64));
	uint32	   *runs = palloc(n * sizeof(uint32));
	uint32	   *codes = palloc(n * sizeof(uint32));

	get_numbers(in, rows, n, present);
	for (int i = 0; i < n; i++)
		offs[i] = EsGetNumber(in);
	get_codes(in, n, runs, codes);
	get_ids(in, rows, n, offs);
	get_names(in, start, rows, n, runs, codes);
	for (int column = ES_SEGMENT_DATA; column < ES_SEGMENT_TEXTS; column++)
		for (int i = 0; i < n && !in->bad; i++)
			if (column == ES_SEGMENT_DATA ||
				(present[i] & (column == ES_SEGMENT_METADATA ? 1 : 2)) != 0)
				rows[i].texts[column] = get_text(in, start);
	pfree(present);
	pfree(offs);
	pfree(runs);
	pfree(codes);
}

/*
 * Take a block apart: its rows, block->nrows of them, in the current memory
 * context, with pointers into memory beside them.
 */
const char *
EsSegmentDecode(const EsSegmentHeader *header, const EsSegmentBlock *block,
				const char *stored, EsSegmentRow **rows)
{
	char	   *raw = unpack_block(header, block, stored);
	EsInput		in = {raw, NULL, false};

	if (raw == NULL)
		return "the checksum of a block is wrong";
	in.end = raw + block->raw;
	if (block->nrows > block->raw)	/* a row takes more than a byte */
		return "a block is too short";
	*rows = palloc0(Max(block->nrows, 1) * sizeof(EsSegmentRow));
	get_rows(&in, *rows, block->nrows);
	return in.bad ? "a block is not what it should be" : NULL;
}

/*
 * Is the map what these rows, in the order of the blocks, call for?
 */
const char *
EsSegmentCheckMap(const EsSegmentHeader *header, const char *stored,
				  EsSegmentRow *const *rows)
{
	const EsSegmentBlock *blocks = EsSegmentBlocks(header);
	char	   *raw = unpack_block(header, &header->map, stored);
	Place	   *places = palloc_extended(Max(header->nevents, 1) * sizeof(Place), MCXT_ALLOC_HUGE);
	StringInfoData map;
	int			n = 0;
	bool		same;

	if (raw == NULL)
		return "the checksum of its map is wrong";
	for (uint32 block = 0; block < header->nblocks; block++)
		for (uint32 i = 0; i < blocks[block].nrows; i++, n++)
			places[n] = (Place) {rows[n]->position, block};
	make_map(&map, places, n);
	same = (uint32) map.len == header->map.raw && memcmp(map.data, raw, map.len) == 0;
	pfree(map.data);
	pfree(places);
	pfree(raw);
	return same ? NULL : "its map is not what it should be";
}

/*
 * Which block holds a position?  stored is the map; *block becomes -1 when
 * there is no event at the position.
 */
const char *
EsSegmentFindPosition(const EsSegmentHeader *header, const char *stored,
					  int64 position, int *block)
{
	char	   *raw = unpack_block(header, &header->map, stored);
	EsInput		in = {raw, NULL, false};
	uint64		last = 0;
	int64		found = -1;

	*block = -1;
	if (raw == NULL)
		return "the checksum of its map is wrong";
	in.end = raw + header->map.raw;
	for (uint32 i = 0; i < header->map.nrows; i++)
	{
		last += EsGetNumber(&in);
		if (last == (uint64) position)
			found = i;
	}
	for (int64 i = 0; i <= found; i++)
	{
		uint64		number = EsGetNumber(&in);

		if (number >= header->nblocks)
			in.bad = true;
		else if (i == found)
			*block = (int) number;
	}
	pfree(raw);
	return in.bad ? "its map is not what it should be" : NULL;
}
