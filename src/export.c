/*
 * export.c: segments as files that leave the server, and come back.
 *
 * A file does not hold the segment as it is stored, which is the memory of one
 * kind of machine, but the events themselves in a form that any server can
 * read: numbers in network order, documents as JSON text.  The SHA-256 of that
 * was written down when the events were archived, so it says whether a file
 * holds exactly those, whatever it or the segment was compressed with.
 *
 * The file: 8 bytes of magic; format, codec and the number of events, 4 bytes
 * each; segment, bytes before and after compression, 8 bytes each; 16 bytes
 * for the name of the encoding; the compressed events; the SHA-256 of all
 * before it.
 *
 * A file may come from anywhere.  Its own checksum only tells accidents.  What
 * counts is the digest in es_archive_segment: no byte of the events is looked
 * at before they have been found to be the archived ones.  Before that, only
 * the fixed beginning is believed, after each number has been checked; no
 * memory is asked for beyond what the codec can have made of the bytes that
 * are there, and what the limit of a datum allows.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "archiver.h"
#include "catalog.h"
#include "export.h"
#include "point.h"

#define ES_FILE_MAGIC "ESEXPORT"
#define ES_FILE_FORMAT 1
#define ES_FILE_ENCODING 16		/* bytes of the encoding's name */
#define ES_FILE_HEAD (8 + 3 * 4 + 3 * 8 + ES_FILE_ENCODING)
#define ES_PACKED_MOST 30000	/* no codec makes one byte of more than that */

/* The beginning of a file. */
typedef struct FileHead
{
	uint32		format;
	uint32		codec;
	uint32		nevents;
	int64		segment;
	int64		raw;
	int64		packed;
	char		encoding[ES_FILE_ENCODING + 1];
	const char *bytes;			/* the compressed events */
} FileHead;

PG_FUNCTION_INFO_V1(es_export_segment);
PG_FUNCTION_INFO_V1(es_detach_segment);
PG_FUNCTION_INFO_V1(es_import_segment);

/* ----- events as bytes ----- */

static void
put_bytes(StringInfo out, const char *bytes, int len)
{
	pq_sendint32(out, len);
	appendBinaryStringInfo(out, bytes, len);
}

static void
put_json(StringInfo out, struct varlena *value)
{
	StringInfoData json;

	if (value == NULL)
	{
		pq_sendint32(out, -1);
		return;
	}
	initStringInfo(&json);
	(void) JsonbToCString(&json, &((Jsonb *) value)->root, VARSIZE(value));
	put_bytes(out, json.data, json.len);
	pfree(json.data);
}

static void
put_tags(StringInfo out, struct varlena *value)
{
	Datum	   *elements;
	int			n;

	if (value == NULL)
	{
		pq_sendint32(out, -1);
		return;
	}
	deconstruct_array((ArrayType *) value, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &n);
	pq_sendint32(out, n);
	for (int i = 0; i < n; i++)
		put_bytes(out, VARDATA_ANY(DatumGetPointer(elements[i])),
				  VARSIZE_ANY_EXHDR(DatumGetPointer(elements[i])));
	pfree(elements);
}

static void
put_event(StringInfo out, const EsSegmentRow *row)
{
	pq_sendint64(out, row->position);
	pq_sendint64(out, row->version);
	pq_sendint64(out, row->recorded_at);
	appendBinaryStringInfo(out, (const char *) row->event_id.data, UUID_LEN);
	pq_sendint32(out, row->type_version);
	for (int i = ES_SEGMENT_STREAM; i <= ES_SEGMENT_TYPE; i++)
		put_bytes(out, VARDATA_ANY(row->texts[i]), VARSIZE_ANY_EXHDR(row->texts[i]));
	put_json(out, row->texts[ES_SEGMENT_DATA]);
	put_json(out, row->texts[ES_SEGMENT_METADATA]);
	put_tags(out, row->texts[ES_SEGMENT_TAGS]);
}

static void
hash_or_fail(int result)
{
	if (result < 0)
		elog(ERROR, "could not compute a SHA-256 digest");
}

/* The digest of events, in the order of positions. */
void
EsExportDigest(const EsSegmentRow *rows, int nrows, uint8 *digest)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	StringInfoData event;

	hash_or_fail(hash == NULL ? -1 : pg_cryptohash_init(hash));
	initStringInfo(&event);
	for (int i = 0; i < nrows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		resetStringInfo(&event);
		put_event(&event, &rows[i]);
		hash_or_fail(pg_cryptohash_update(hash, (const uint8 *) event.data, event.len));
	}
	hash_or_fail(pg_cryptohash_final(hash, digest, PG_SHA256_DIGEST_LENGTH));
	pg_cryptohash_free(hash);
	pfree(event.data);
}

static void
digest_bytes(const char *bytes, Size len, uint8 *digest)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);

	hash_or_fail(hash == NULL ? -1 : pg_cryptohash_init(hash));
	hash_or_fail(pg_cryptohash_update(hash, (const uint8 *) bytes, len));
	hash_or_fail(pg_cryptohash_final(hash, digest, PG_SHA256_DIGEST_LENGTH));
	pg_cryptohash_free(hash);
}

/* ----- bytes as events ----- */

/* They are the archived ones, so what is wrong with them is our own mistake. */
static struct varlena *
get_text(StringInfo in, int len)
{
	const char *bytes = pq_getmsgbytes(in, len);

	pg_verifymbstr(bytes, len, false);
	return (struct varlena *) cstring_to_text_with_len(bytes, len);
}

static struct varlena *
get_json(StringInfo in)
{
	int			len = pq_getmsgint(in, 4);
	char	   *json;

	if (len == -1)
		return NULL;
	json = pnstrdup(pq_getmsgbytes(in, len), len);
	pg_verifymbstr(json, len, false);
	return (struct varlena *) DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
}

static struct varlena *
get_tags(StringInfo in)
{
	int			n = pq_getmsgint(in, 4);
	Datum	   *elements;

	if (n < 0)
		return NULL;
	if (n > in->len)
		n = 0;
	elements = palloc(Max(n, 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
		elements[i] = PointerGetDatum(get_text(in, pq_getmsgint(in, 4)));
	return (struct varlena *) construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT);
}

static void
get_event(StringInfo in, EsSegmentRow *row)
{
	row->position = pq_getmsgint64(in);
	row->version = pq_getmsgint64(in);
	row->recorded_at = pq_getmsgint64(in);
	memcpy(row->event_id.data, pq_getmsgbytes(in, UUID_LEN), UUID_LEN);
	row->type_version = pq_getmsgint(in, 4);
	for (int i = ES_SEGMENT_STREAM; i <= ES_SEGMENT_TYPE; i++)
		row->texts[i] = get_text(in, pq_getmsgint(in, 4));
	row->texts[ES_SEGMENT_DATA] = get_json(in);
	row->texts[ES_SEGMENT_METADATA] = get_json(in);
	row->texts[ES_SEGMENT_TAGS] = get_tags(in);
}

/* ----- files ----- */

static void
report_file(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
			 errmsg("this is no exported segment of this store"),
			 errdetail("%s", detail),
			 errhint("Give what es_export_segment() answered, unchanged.")));
}

/* Take the beginning apart; 22P03 for whatever is wrong with it. */
static FileHead
read_head(bytea *file)
{
	FileHead	head;
	StringInfoData in = {.data = VARDATA_ANY(file),.len = VARSIZE_ANY_EXHDR(file)};
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	if (in.len < ES_FILE_HEAD + PG_SHA256_DIGEST_LENGTH)
		report_file("It is too short.");
	if (memcmp(pq_getmsgbytes(&in, 8), ES_FILE_MAGIC, 8) != 0)
		report_file("It does not begin like one.");
	head.format = pq_getmsgint(&in, 4);
	if (head.format != ES_FILE_FORMAT)
		report_file(psprintf("Its format is of version %u; this build reads version %d.",
							 head.format, ES_FILE_FORMAT));
	digest_bytes(in.data, in.len - PG_SHA256_DIGEST_LENGTH, digest);
	if (memcmp(digest, in.data + in.len - PG_SHA256_DIGEST_LENGTH, sizeof(digest)) != 0)
		report_file("Its checksum is wrong.");
	head.codec = pq_getmsgint(&in, 4);
	head.nevents = pq_getmsgint(&in, 4);
	head.segment = pq_getmsgint64(&in);
	head.raw = pq_getmsgint64(&in);
	head.packed = pq_getmsgint64(&in);
	strlcpy(head.encoding, pq_getmsgbytes(&in, ES_FILE_ENCODING), sizeof(head.encoding));
	if (head.packed != in.len - ES_FILE_HEAD - PG_SHA256_DIGEST_LENGTH)
		report_file("Its length is not what it says.");
	if (head.raw < head.packed || !AllocSizeIsValid(head.raw) ||
		head.raw / ES_PACKED_MOST > head.packed)
		report_file("The size of its events cannot be true.");
	head.bytes = in.data + ES_FILE_HEAD;
	return head;
}

/* The events of a file as bytes. */
static char *
unpack_file(const FileHead *head)
{
	char	   *raw;

	if (!EsCodecIsAvailable(head->codec))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the file is compressed with %s, which this build cannot read",
						EsCodecName(head->codec)),
				 errhint("Build eventstore where that library's headers are installed.")));
	raw = palloc(Max(head->raw, 1));
	if (!EsCodecDecompress(head->codec, head->bytes, head->packed, raw, head->raw))
		report_file("Its events cannot be decompressed.");
	return raw;
}

/* Check that a file holds the archived events; answer them as bytes. */
static char *
check_file(const FileHead *head, const uint8 *wanted)
{
	char	   *raw = unpack_file(head);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	digest_bytes(raw, head->raw, digest);
	if (ES_BUG != 87 && memcmp(digest, wanted, sizeof(digest)) != 0)
		report_file("Its events are not those that were archived.");
	return raw;
}

static bytea *
write_file(const EsArchiveSegment *segment, EsCodec codec, StringInfo raw)
{
	StringInfoData out;
	char		encoding[ES_FILE_ENCODING + 1] = {0};
	Size		bound = EsCodecBound(codec, raw->len);
	Size		packed;
	char	   *target = palloc_extended(Max(bound, (Size) raw->len), MCXT_ALLOC_HUGE);

	packed = EsCodecCompress(codec, raw->data, raw->len, target, bound);
	if (packed == 0)
		memcpy(target, raw->data, packed = raw->len);
	strlcpy(encoding, GetDatabaseEncodingName(), sizeof(encoding));
	initStringInfo(&out);
	appendStringInfoSpaces(&out, VARHDRSZ);
	appendBinaryStringInfo(&out, ES_FILE_MAGIC, 8);
	pq_sendint32(&out, ES_FILE_FORMAT);
	pq_sendint32(&out, codec);
	pq_sendint32(&out, segment->events);
	pq_sendint64(&out, segment->segment);
	pq_sendint64(&out, raw->len);
	pq_sendint64(&out, packed);
	appendBinaryStringInfo(&out, encoding, ES_FILE_ENCODING);
	appendBinaryStringInfo(&out, target, packed);
	enlargeStringInfo(&out, PG_SHA256_DIGEST_LENGTH);
	digest_bytes(out.data + VARHDRSZ, out.len - VARHDRSZ, (uint8 *) out.data + out.len);
	out.len += PG_SHA256_DIGEST_LENGTH;
	SET_VARSIZE(out.data, out.len);
	pfree(target);
	return (bytea *) out.data;
}

/* ----- SQL ----- */

static EsArchiveSegment
require_segment(int64 number)
{
	EsArchiveSegment segment;

	if (!EsArchiveFindSegment(number, GetActiveSnapshot(), &segment))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("archive segment " INT64_FORMAT " does not exist", number)));
	return segment;
}

/*
 * es_export_segment(segment bigint) → bytea
 */
Datum
es_export_segment(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	EsArchiveSegment segment;
	EsSegmentRow **rows;
	StringInfoData raw;
	int			n;

	EsCheckPrivilege(event, ACL_SELECT);
	segment = require_segment(PG_GETARG_INT64(0));
	rows = EsArchiveDecodeAll(&segment, &n);
	initStringInfo(&raw);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		put_event(&raw, rows[i]);
	}
	table_close(event, AccessShareLock);
	PG_RETURN_BYTEA_P(write_file(&segment, EsCodecBest(), &raw));
}

/*
 * es_detach_segment(segment bigint, exported bytea) → void
 */
Datum
es_detach_segment(PG_FUNCTION_ARGS)
{
	int64		number = PG_GETARG_INT64(0);
	FileHead	head = read_head(PG_GETARG_BYTEA_PP(1));
	EsArchiverRow row;

	EsRequireReadWrite("es_detach_segment()");
	EsArchiverLock();
	if (!EsArchiverReadRow(number, &row))
		(void) require_segment(number);
	if (head.segment != number)
		report_file(psprintf("It is segment " INT64_FORMAT ".", head.segment));
	pfree(check_file(&head, row.digest));
	if (row.nulls[ES_ARCHIVE_CONTENT - 1])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("archive segment " INT64_FORMAT " is off-line already", number)));
	row.nulls[ES_ARCHIVE_CONTENT - 1] = true;
	EsArchiverReplaceRow(&row);
	PG_RETURN_VOID();
}

/* Events as rows, by stream and version. */
static EsSegmentRow *
rows_of_file(const FileHead *head, char *raw)
{
	StringInfoData in = {.data = raw,.len = (int) head->raw};
	EsSegmentRow *rows;

	if (strcmp(head->encoding, GetDatabaseEncodingName()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot import a segment in encoding \"%s\" into a database in \"%s\"",
						head->encoding, GetDatabaseEncodingName())));
	rows = palloc_extended((Size) Max(head->nevents, 1) * sizeof(EsSegmentRow),
						   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (uint32 i = 0; i < head->nevents; i++)
	{
		CHECK_FOR_INTERRUPTS();
		get_event(&in, &rows[i]);
	}
	qsort(rows, head->nevents, sizeof(EsSegmentRow), EsSegmentRowCompare);
	return rows;
}

/*
 * es_import_segment(exported bytea, codec text) → bigint
 */
Datum
es_import_segment(PG_FUNCTION_ARGS)
{
	FileHead	head;
	EsArchiverRow row;
	EsCodec		codec;
	int64		raw_bytes;
	char	   *raw;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "exported")));
	EsRequireReadWrite("es_import_segment()");
	codec = EsArchiverCodec(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1));
	head = read_head(PG_GETARG_BYTEA_PP(0));
	EsArchiverLock();
	if (!EsArchiverReadRow(head.segment, &row))
		report_file(psprintf("This store has no archive segment " INT64_FORMAT ".",
							 head.segment));
	raw = check_file(&head, row.digest);
	if (head.nevents != (uint32) DatumGetInt32(row.values[ES_ARCHIVE_EVENTS - 1]))
		report_file("The number of its events is wrong.");
	row.values[ES_ARCHIVE_CONTENT - 1] =
		PointerGetDatum(EsSegmentEncode(rows_of_file(&head, raw), head.nevents, codec, &raw_bytes));
	row.nulls[ES_ARCHIVE_CONTENT - 1] = false;
	row.values[ES_ARCHIVE_RAW_BYTES - 1] = Int64GetDatum(raw_bytes);
	row.values[ES_ARCHIVE_STORED_BYTES - 1] =
		Int64GetDatum(VARSIZE_ANY_EXHDR(DatumGetPointer(row.values[ES_ARCHIVE_CONTENT - 1])));
	row.values[ES_ARCHIVE_CODEC - 1] = CStringGetTextDatum(EsCodecName(codec));
	EsArchiverReplaceRow(&row);
	PG_RETURN_INT64(head.segment);
}
