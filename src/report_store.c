/*
 * report_store.c: the page about a whole store.
 *
 * However large the store, it reads a bounded part of it: windows of the log
 * for types, streams and times, two probes of an index for each stream that is
 * named, and the views that are as thrifty.  Where a figure is an estimate the
 * page says so.  A log that is no longer than what may be read is read whole,
 * and every figure is exact.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "log.h"
#include "query.h"
#include "report.h"
#include "scan.h"
#include "stat.h"
#include "stream.h"

#define LOG_BUDGET 8192			/* positions read of the whole log */
#define EXACT_BUDGET 20000		/* a chart of no more than these is exact */
#define BUCKET_BUDGET 1024		/* positions read for one column of another */
#define RECENT_EVENTS 5000		/* among which the busiest streams are found */
#define HOURS 24
#define LIFE_COLUMNS 48
#define CANDIDATES 40			/* streams that are looked at closely */
#define TOP 10
#define TYPES_SHOWN 12

/* A name, and how often it was met. */
typedef struct Tally
{
	char	   *name;
	int64		count;
	int64		version;		/* of a stream: events it has */
	TimestampTz last;			/* the newest met */
} Tally;

/* A tally in its table; names are told apart by 128 bits of hash. */
typedef struct TallyEntry
{
	uint64		key[2];
	Tally		tally;
} TallyEntry;

typedef struct Overview
{
	EsReport   *report;
	HTAB	   *types;
	HTAB	   *streams;
	HTAB	   *recent;			/* streams among the last events */
	int64		nrecent;		/* events looked at there */
	EsSample	sample;			/* of the whole log */
	int64		offline;		/* nothing is read at or below it */
	int64		first;			/* position of the first event behind it */
	int64		last;			/* and of the last; 0: no events */
	TimestampTz first_at;		/* when the first was recorded */
	Tally	   *top_types;
	int			ntypes;
	char	   *names[ES_REPORT_COLORS];	/* of the series */
	int			nseries;
	EsBuckets  *buckets;		/* being filled */
	double		weight;			/* of each event that is put into them */
	int			column;			/* all go into this one; -1: by their time */
} Overview;

/* ----- counting names ----- */

static HTAB *
make_tallies(const char *name)
{
	HASHCTL		control = {.keysize = 2 * sizeof(uint64),.entrysize = sizeof(TallyEntry),
	.hcxt = CurrentMemoryContext};

	return hash_create(name, 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
count_name(HTAB *tallies, TupleTableSlot *slot, AttrNumber column)
{
	bool		isnull;
	text	   *name = DatumGetTextPP(slot_getattr(slot, column, &isnull));
	TimestampTz at = DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull));
	uint64		hash[2];
	TallyEntry *entry;
	bool		found;

	hash[0] = hash_bytes_extended((unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), 0);
	hash[1] = hash_bytes_extended((unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), 1);
	entry = hash_search(tallies, hash, HASH_ENTER, &found);
	if (!found)
	{
		memset(&entry->tally, 0, sizeof(Tally));
		entry->tally.name = text_to_cstring(name);
		entry->tally.last = at;
	}
	entry->tally.count++;
	entry->tally.last = Max(entry->tally.last, at);
}

static int
by_count(const void *a, const void *b)
{
	const Tally *left = a;
	const Tally *right = b;

	if (left->count != right->count)
		return left->count < right->count ? 1 : -1;
	return strcmp(left->name, right->name);
}

static int
by_version(const void *a, const void *b)
{
	const Tally *left = a;
	const Tally *right = b;

	if (left->version != right->version)
		return left->version < right->version ? 1 : -1;
	return strcmp(left->name, right->name);
}

/* All tallies, those most often met first. */
static Tally *
sorted_tallies(HTAB *tallies, int *n)
{
	Tally	   *result = palloc(Max(hash_get_num_entries(tallies), 1) * sizeof(Tally));
	HASH_SEQ_STATUS scan;
	TallyEntry *entry;

	*n = 0;
	hash_seq_init(&scan, tallies);
	while ((entry = hash_seq_search(&scan)) != NULL)
		result[(*n)++] = entry->tally;
	qsort(result, *n, sizeof(Tally), by_count);
	return result;
}

/* ----- reading the log ----- */

static void
visit_event(TupleTableSlot *slot, void *arg)
{
	Overview   *overview = arg;

	count_name(overview->types, slot, ES_EVENT_EVENT_TYPE);
	count_name(overview->streams, slot, ES_EVENT_STREAM_ID);
}

/* The streams of the last events. */
static void
read_recent(Overview *overview)
{
	EsScan	   *scan = EsScanPositions(overview->report->event, overview->report->snapshot,
									   overview->offline + 1,
									   PG_INT64_MAX, BackwardScanDirection);
	TupleTableSlot *slot;

	while (overview->nrecent < RECENT_EVENTS && (slot = EsScanNext(scan)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		count_name(overview->recent, slot, ES_EVENT_STREAM_ID);
		overview->nrecent++;
	}
	EsScanEnd(scan);
}

static void
note_first(TupleTableSlot *slot, void *arg)
{
	bool		isnull;

	((Overview *) arg)->first_at =
		DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull));
}

/* Give the types that are met most a series each, the others one together. */
static void
choose_series(Overview *overview)
{
	overview->top_types = sorted_tallies(overview->types, &overview->ntypes);
	overview->nseries = Min(overview->ntypes, ES_REPORT_COLORS);
	for (int i = 0; i < overview->nseries; i++)
		overview->names[i] = overview->top_types[i].name;
	if (overview->ntypes > ES_REPORT_COLORS)
		overview->names[ES_REPORT_COLORS - 1] = "all others";
}

static void
read_log(Overview *overview)
{
	EsReport   *report = overview->report;
	int64		unread;

	overview->offline = EsLogOffline(report->snapshot, &unread);
	overview->types = make_tallies("event types");
	overview->streams = make_tallies("streams");
	overview->recent = make_tallies("recent streams");
	if (EsLogEnds(report->event, report->snapshot, overview->offline,
				  &overview->first, &overview->last))
	{
		overview->sample = EsSampleLog(report->event, report->snapshot,
									   overview->first - 1, overview->last,
									   LOG_BUDGET, visit_event, overview);
		(void) EsSampleLog(report->event, report->snapshot,
						   overview->first - 1, overview->first, 1, note_first, overview);
		read_recent(overview);
	}
	choose_series(overview);
}

/* ----- columns over time ----- */

static int
series_of(const Overview *overview, TupleTableSlot *slot)
{
	bool		isnull;
	text	   *type = DatumGetTextPP(slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull));
	int			named = overview->ntypes > ES_REPORT_COLORS ? ES_REPORT_COLORS - 1 : overview->nseries;

	for (int i = 0; i < named; i++)
		if (strlen(overview->names[i]) == VARSIZE_ANY_EXHDR(type) &&
			memcmp(overview->names[i], VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type)) == 0)
			return i;
	return Max(overview->nseries - 1, 0);
}

static void
put_into_bucket(TupleTableSlot *slot, void *arg)
{
	Overview   *overview = arg;
	EsBuckets  *buckets = overview->buckets;
	bool		isnull;
	TimestampTz at = DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull));
	int64		column = overview->column;

	if (column < 0)
		column = at < buckets->from ? -1 : (at - buckets->from) / buckets->width;
	if (column >= 0 && column < buckets->n)
		buckets->counts[column][series_of(overview, slot)] += overview->weight;
}

/* A column from a sample of the positions in its stretch of time. */
static void
sample_column(Overview *overview, int64 from, int64 to)
{
	EsReport   *report = overview->report;
	double	   *counts = overview->buckets->counts[overview->column];
	EsSample	sample;

	overview->weight = 1;
	sample = EsSampleLog(report->event, report->snapshot, from, to,
						 BUCKET_BUDGET, put_into_bucket, overview);
	for (int s = 0; s < ES_REPORT_COLORS; s++)
		counts[s] *= EsSampleWeight(&sample);
	if (!EsSampleIsWhole(&sample))
		overview->buckets->is_sampled = true;
}

/* The last position recorded before a time, of those that are read. */
static int64
position_before(Overview *overview, TimestampTz at)
{
	EsReport   *report = overview->report;

	return at <= overview->first_at ? Max(overview->first - 1, 0) :
		EsPositionBy(report->event, report->store, report->snapshot, at - 1);
}

/* Fill the columns; times and positions go up together, but for neighbours. */
static void
fill_buckets(Overview *overview, EsBuckets *buckets)
{
	EsReport   *report = overview->report;
	TimestampTz end = buckets->from + buckets->n * buckets->width;
	int64		from = position_before(overview, buckets->from);
	int64		to = position_before(overview, end);

	buckets->counts = palloc0(buckets->n * sizeof(buckets->counts[0]));
	overview->buckets = buckets;
	overview->column = -1;
	overview->weight = 1;
	if (overview->last - Max(from, overview->first) <= EXACT_BUDGET)
	{
		/* neighbours in the wrong order are no matter when all are read */
		(void) EsSampleLog(report->event, report->snapshot,
						   Max(from - LOG_BUDGET, overview->first - 1), overview->last,
						   PG_INT32_MAX, put_into_bucket, overview);
		return;
	}
	for (int i = 0; i < buckets->n; i++)
	{
		int64		next = i == buckets->n - 1 ? to :
			position_before(overview, buckets->from + (i + 1) * buckets->width);

		overview->column = i;
		sample_column(overview, from, next);
		from = Max(from, next);
	}
}

/* The last hours, by the clock of the session's time zone. */
static void
hours_until_now(TimestampTz now, EsBuckets *buckets)
{
	TimestampTz hour = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_trunc,
															   CStringGetTextDatum("hour"),
															   TimestampTzGetDatum(now)));

	memset(buckets, 0, sizeof(EsBuckets));
	buckets->n = HOURS;
	buckets->width = USECS_PER_HOUR;
	buckets->from = hour - (HOURS - 1) * USECS_PER_HOUR;
}

static const char *
sampled_note(bool is_sampled)
{
	return is_sampled ? "Estimated from samples of the log." : "Every event is counted.";
}

static void
put_hours(Overview *overview)
{
	StringInfo	out = overview->report->out;
	EsBuckets	buckets;

	hours_until_now(overview->report->now, &buckets);
	fill_buckets(overview, &buckets);
	appendStringInfo(out, "<section><h2>The last %d hours</h2><p>Events by hour and type. %s</p>\n",
					 HOURS, sampled_note(buckets.is_sampled));
	EsChartColumns(out, "hours", &buckets, overview->names, overview->nseries);
	appendStringInfoString(out, "</section>\n");
}

static void
put_life(Overview *overview)
{
	StringInfo	out = overview->report->out;
	EsBuckets	buckets = {.from = overview->first_at,.n = LIFE_COLUMNS};
	int64		age = Max(overview->report->now - overview->first_at, LIFE_COLUMNS);

	if (overview->last == 0)
		return;
	buckets.width = age / LIFE_COLUMNS + 1;
	fill_buckets(overview, &buckets);
	appendStringInfoString(out, "<section><h2>Since the first event</h2><p>Each column is ");
	EsHtmlSeconds(out, buckets.width / (double) USECS_PER_SEC);
	appendStringInfo(out, ". %s</p>\n", sampled_note(buckets.is_sampled));
	EsChartColumns(out, "life", &buckets, overview->names, overview->nseries);
	appendStringInfoString(out, "</section>\n");
}

/* ----- types and streams ----- */

static const char *const about = "&asymp;&nbsp;";

/* An estimate with no more digits than it is worth. */
static int64
round_estimate(double value)
{
	double		unit = value < 1000 ? 1 : pow(10, floor(log10(value)) - 2);

	return (int64) (rint(value / unit) * unit);
}

static void
put_types(Overview *overview)
{
	StringInfo	out = overview->report->out;
	double		weight = EsSampleWeight(&overview->sample);

	appendStringInfo(out, "<section><h2>Event types</h2><p>%s%s</p>",
					 sampled_note(!EsSampleIsWhole(&overview->sample)),
					 overview->offline == 0 ? "" : " Events in segments of the archive that are off-line are not looked at.");
	if (overview->ntypes == 0)
		appendStringInfoString(out, "<p class=empty>No event has been appended yet.</p>");
	appendStringInfoString(out, "<table id=types><tbody>");
	for (int i = 0; i < Min(overview->ntypes, TYPES_SHOWN); i++)
	{
		Tally	   *type = &overview->top_types[i];
		double		share = type->count / (double) Max(overview->sample.events, 1);
		bool		named = i < ES_REPORT_COLORS - 1 || overview->ntypes <= ES_REPORT_COLORS;

		appendStringInfo(out, "<tr><th class=name><i class=\"dot c%d\"></i>", named ? i : ES_REPORT_COLORS - 1);
		EsHtmlText(out, type->name, 255);
		appendStringInfoString(out, "<td class=bars>");
		EsHtmlBar(out, share, named ? i : ES_REPORT_COLORS - 1);
		appendStringInfo(out, "<td class=n data-value=%.0f>", rint(type->count * weight));
		appendStringInfoString(out, EsSampleIsWhole(&overview->sample) ? "" : about);
		EsHtmlCount(out, EsSampleIsWhole(&overview->sample) ? type->count :
					round_estimate(type->count * weight));
		appendStringInfo(out, "<td class=n>%.1f&nbsp;%%", 100 * share);
	}
	appendStringInfoString(out, "</tbody></table>");
	if (overview->ntypes > TYPES_SHOWN)
		appendStringInfo(out, "<p class=empty>%d more</p>", overview->ntypes - TYPES_SHOWN);
	appendStringInfoString(out, "</section>\n");
}

/* Look up how many events each of the streams has. */
static void
look_up_versions(Overview *overview, Tally *streams, int n)
{
	EsReport   *report = overview->report;

	for (int i = 0; i < n; i++)
	{
		EsStreamHead head = EsStreamHeadRead(report->event, cstring_to_text(streams[i].name),
											 report->snapshot);

		streams[i].version = head.version;
		streams[i].last = head.recorded_at;
	}
}

static void
put_streams(Overview *overview, const char *id, Tally *streams, int n, bool by_recent)
{
	StringInfo	out = overview->report->out;
	int64		highest = 1;

	for (int i = 0; i < n; i++)
		highest = Max(highest, by_recent ? streams[i].count : streams[i].version);
	appendStringInfo(out, "<table id=%s><thead><tr><th>Stream<th class=bars><th class=n>%s<th class=n>Last event</thead><tbody>",
					 id, by_recent ? "Of these" : "Events");
	for (int i = 0; i < n; i++)
	{
		int64		value = by_recent ? streams[i].count : streams[i].version;

		appendStringInfoString(out, "<tr><th class=name>");
		EsHtmlText(out, streams[i].name, 120);
		appendStringInfoString(out, "<td class=bars>");
		EsHtmlBar(out, value / (double) highest, -1);
		appendStringInfo(out, "<td class=n data-value=" INT64_FORMAT ">", value);
		EsHtmlCount(out, value);
		appendStringInfoString(out, "<td class=n>");
		EsHtmlTime(out, streams[i].last);
	}
	appendStringInfoString(out, "</tbody></table>");
	if (n == 0)
		appendStringInfoString(out, "<p class=empty>There is no stream yet.</p>");
}

/* The largest are those that the sample has met often, and that are large. */
static void
put_largest(Overview *overview)
{
	StringInfo	out = overview->report->out;
	int			n;
	Tally	   *streams = sorted_tallies(overview->streams, &n);

	if (!EsSampleIsWhole(&overview->sample))
		n = Min(n, CANDIDATES);
	else
		n = Min(n, TOP);
	look_up_versions(overview, streams, n);
	qsort(streams, n, sizeof(Tally), by_version);
	appendStringInfo(out, "<section><h2>Largest streams</h2><p>%s</p>",
					 EsSampleIsWhole(&overview->sample) ? "By the number of their events." :
					 "By the number of their events, which is exact; which streams to look at was found in a sample.");
	put_streams(overview, "largest", streams, Min(n, TOP), false);
	appendStringInfoString(out, "</section>\n");
}

static void
put_busiest(Overview *overview)
{
	StringInfo	out = overview->report->out;
	int			n;
	Tally	   *streams = sorted_tallies(overview->recent, &n);

	appendStringInfoString(out, "<section><h2>Busiest streams</h2><p>Among the last ");
	EsHtmlCount(out, overview->nrecent);
	appendStringInfoString(out, " events.</p>");
	put_streams(overview, "busiest", streams, Min(n, TOP), true);
	appendStringInfoString(out, "</section>\n");
}

/* ----- what the views say ----- */

static double
query_double(int column)
{
	char	   *value = EsQueryText(0, column);

	return value == NULL ? 0 : strtod(value, NULL);
}

/* The one who keeps readers waiting, as the note of a tile; or nobody. */
static char *
holder_note(void)
{
	StringInfoData note;

	initStringInfo(&note);
	if (EsQueryText(0, 11) == NULL)
		appendStringInfoString(&note, "nobody holds readers back");
	else if (EsQueryText(0, 9) != NULL)
		appendStringInfo(&note, "held by process %s", EsQueryText(0, 9));
	else
	{
		appendStringInfoString(&note, "held by prepared transaction ");
		EsHtmlText(&note, EsQueryText(0, 10), 60);
	}
	return note.data;
}

/* A ratio of two counters as a tile. */
static void
put_conflicts(StringInfo out)
{
	double		conflicts = query_double(6);
	double		attempts = conflicts + query_double(5);
	StringInfoData note;

	initStringInfo(&note);
	EsHtmlCount(&note, (int64) conflicts);
	appendStringInfoString(&note, " of ");
	EsHtmlCount(&note, (int64) attempts);
	appendStringInfoString(&note, " since the counters began");
	EsHtmlTile(out, "conflicts", "Conflicts", conflicts);
	appendStringInfo(out, "%.2f&nbsp;%%", attempts == 0 ? 0.0 : 100 * conflicts / attempts);
	EsHtmlTileEnd(out, note.data);
}

/* How much there is, and how fast it grows. */
static void
put_size_tiles(EsReport *report)
{
	StringInfo	out = report->out;
	bool		estimated;

	EsQueryRun("SELECT events, streams, is_estimate, events_per_second, appended, conflicts,"
			   " table_bytes + index_bytes + archive_bytes, settled_age_seconds, holder_pid, holder_gid,"
			   " holder_position FROM @es_stat_store", NULL);
	estimated = EsQueryText(0, 3)[0] == 't';
	EsHtmlTile(out, "events", "Events", query_double(1));
	appendStringInfoString(out, estimated ? about : "");
	EsHtmlCount(out, EsQueryInt64(0, 1));
	EsHtmlTileEnd(out, estimated ? "estimated from a sample" : "counted");
	EsHtmlTile(out, "streams", "Streams", query_double(2));
	appendStringInfoString(out, estimated ? about : "");
	EsHtmlCount(out, estimated ? round_estimate(query_double(2)) : EsQueryInt64(0, 2));
	EsHtmlTileEnd(out, estimated ? "estimated from a sample" : "counted");
	EsHtmlTile(out, "rate", "Events per second", query_double(4));
	appendStringInfo(out, query_double(4) < 100 ? "%.1f" : "%.0f", query_double(4));
	EsHtmlTileEnd(out, "during the last minute");
	EsHtmlTile(out, "bytes", "On disk", query_double(7));
	EsHtmlBytes(out, EsQueryInt64(0, 7));
	EsHtmlTileEnd(out, "table and indexes");
	put_conflicts(out);
	EsHtmlTile(out, "settled", "Readers wait", query_double(8));
	EsHtmlSeconds(out, query_double(8));
	EsHtmlTileEnd(out, holder_note());
}

/* How well it is looked after. */
static void
put_care_tiles(EsReport *report, int errors, int warnings)
{
	StringInfo	out = report->out;

	EsQueryRun("SELECT coalesce(max(lag_seconds), 0), count(*),"
			   " count(*) FILTER (WHERE status = 'stopped') FROM @es_stat_projection", NULL);
	EsHtmlTile(out, "lag", "Projections behind", query_double(1));
	EsHtmlSeconds(out, query_double(1));
	EsHtmlTileEnd(out, psprintf(INT64_FORMAT " defined, " INT64_FORMAT " stopped",
								EsQueryInt64(0, 2), EsQueryInt64(0, 3)));
	EsHtmlTile(out, "health", "Health", errors + warnings);
	if (errors + warnings == 0)
		appendStringInfoString(out, "Sound");
	else
		appendStringInfo(out, "%d %s", errors > 0 ? errors : warnings,
						 errors > 1 ? "errors" : errors == 1 ? "error" : warnings > 1 ? "warnings" : "warning");
	EsHtmlTileEnd(out, errors + warnings == 0 ? "nothing to do" :
				  errors == 0 || warnings == 0 ? "see the end of the page" :
				  psprintf("and %d %s; see the end of the page", warnings,
						   warnings > 1 ? "warnings" : "warning"));
}

static void
put_projection(StringInfo out, int row, double last)
{
	double		position = EsQueryInt64(row, 4);

	appendStringInfoString(out, "<tr><th class=name>");
	EsHtmlText(out, EsQueryText(row, 1), 120);
	if (EsQueryText(row, 9) != NULL)
	{
		appendStringInfoString(out, "<span class=hint>");
		EsHtmlText(out, EsQueryText(row, 9), 300);
		appendStringInfoString(out, "</span>");
	}
	appendStringInfoString(out, "<td>");
	EsHtmlChip(out, EsQueryText(row, 3));
	appendStringInfoString(out, "<td class=bars>");
	EsHtmlBar(out, last <= 0 || EsQueryInt64(row, 5) == 0 ? 1 : position / last, -1);
	appendStringInfo(out, "<td class=n data-value=" INT64_FORMAT ">", EsQueryInt64(row, 5));
	EsHtmlCount(out, EsQueryInt64(row, 5));
	appendStringInfoString(out, "<td class=n>");
	EsHtmlSeconds(out, strtod(EsQueryText(row, 6), NULL));
	appendStringInfoString(out, "<td class=\"n wide\">");
	EsHtmlCount(out, (int64) strtod(EsQueryText(row, 7), NULL));
	appendStringInfoString(out, "<td class=\"n wide\">");
	EsHtmlCount(out, EsQueryInt64(row, 8));
	appendStringInfo(out, "<td class=wide>%s", EsQueryText(row, 2));
}

static void
put_projections(EsReport *report)
{
	uint64		n = EsQueryRun("SELECT name, mode, status, position, lag_events, lag_seconds,"
							   " coalesce(events_per_second, 0), parked,"
							   " CASE WHEN status = 'stopped' THEN last_error END"
							   " FROM @es_stat_projection"
							   " ORDER BY status <> 'stopped', lag_seconds DESC, name LIMIT 50", NULL);
	double		last = EsLastDrawn(report->store, NULL);

	appendStringInfoString(report->out, "<section><h2>Projections</h2><p>How far each has read, and how much is before it.</p>");
	if (n == 0)
		appendStringInfoString(report->out, "<p class=empty>None is defined.</p>");
	else
		appendStringInfoString(report->out, "<div class=scroll><table id=projections><thead><tr><th>Name<th>Status<th class=bars>"
							   "<th class=n>Positions behind<th class=n>Time behind<th class=\"n wide\">Events/s<th class=\"n wide\">Parked<th class=wide>Mode</thead><tbody>");
	for (uint64 i = 0; i < n; i++)
		put_projection(report->out, i, last);
	appendStringInfoString(report->out, n == 0 ? "</section>\n" : "</tbody></table></div></section>\n");
}

/* Any rows as a table, with the names of their columns. */
static void
put_rows(StringInfo out, const char *id, uint64 n)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;

	appendStringInfo(out, "<div class=scroll><table id=%s><thead><tr>", id);
	for (int c = 0; c < desc->natts; c++)
	{
		char	   *name = pstrdup(NameStr(TupleDescAttr(desc, c)->attname));

		for (char *p = name; *p != '\0'; p++)
			*p = *p == '_' ? ' ' : *p;
		appendStringInfoString(out, "<th>");
		EsHtmlText(out, name, 0);
	}
	appendStringInfoString(out, "</thead><tbody>");
	for (uint64 r = 0; r < n; r++)
	{
		appendStringInfoString(out, "<tr>");
		for (int c = 1; c <= desc->natts; c++)
		{
			char	   *value = EsQueryText(r, c);

			appendStringInfoString(out, "<td class=name>");
			if (value != NULL)
				EsHtmlText(out, value, 200);
		}
	}
	appendStringInfoString(out, "</tbody></table></div>");
}

/* A section of a view's rows, where there is such a view and it has some. */
static void
put_view(EsReport *report, const char *view, const char *id, const char *title)
{
	uint64		n;

	if (!OidIsValid(get_relname_relid(view, report->store->schema)))
		return;
	n = EsQueryRun(psprintf("SELECT * FROM @%s LIMIT 50", view), NULL);
	if (n == 0)
		return;
	appendStringInfo(report->out, "<section><h2>%s</h2>", title);
	put_rows(report->out, id, n);
	appendStringInfoString(report->out, "</section>\n");
}

/* One result of es_check(). */
static void
put_finding(StringInfo out, int row)
{
	appendStringInfoString(out, "<tr><th>");
	EsHtmlText(out, EsQueryText(row, 1), 0);
	appendStringInfoString(out, "<td>");
	EsHtmlChip(out, EsQueryText(row, 2));
	appendStringInfoString(out, "<td class=name>");
	EsHtmlText(out, EsQueryText(row, 3), 500);
	if (EsQueryText(row, 4) == NULL)
		return;
	appendStringInfoString(out, "<span class=hint>");
	EsHtmlText(out, EsQueryText(row, 4), 300);
	appendStringInfoString(out, "</span>");
}

/* The names of some results, as a list. */
static void
put_names(StringInfo out, int from, int to)
{
	for (int i = from; i < to; i++)
	{
		appendStringInfoString(out, i == from ? "" : ", ");
		EsHtmlText(out, EsQueryText(i, 1), 0);
	}
}

static void
put_findings(StringInfo out, const char *id, int from, int to)
{
	if (from == to)
		return;
	appendStringInfo(out, "<table id=%s class=health><tbody>", id);
	for (int i = from; i < to; i++)
		put_finding(out, i);
	appendStringInfoString(out, "</tbody></table>");
}

/*
 * What es_check() finds, the worst first; what is well opens on demand, and
 * what a page has no time for is named.  The section goes to the end of the
 * page, so it is kept, and counted, for later.
 */
static StringInfo
make_health(int *errors, int *warnings)
{
	StringInfo	out = makeStringInfo();
	int			counts[4] = {0};	/* errors, warnings, sound, unfinished */
	int			ill;
	int			n = EsQueryRun("SELECT c.check_name, c.status, c.detail, c.hint, k.class"
							   " FROM @es_check('300 ms') WITH ORDINALITY AS c(check_name, status, detail, hint, n),"
							   " LATERAL (SELECT CASE WHEN c.status = 'warning' AND c.detail LIKE 'not finished:%' THEN 4"
							   " ELSE array_position(ARRAY['error', 'warning', 'ok'], c.status) END::bigint) AS k(class)"
							   " ORDER BY k.class, c.n", NULL);

	for (int i = 0; i < n; i++)
		counts[EsQueryInt64(i, 5) - 1]++;
	*errors = counts[0];
	*warnings = counts[1];
	ill = counts[0] + counts[1];
	appendStringInfoString(out, "<section><h2>Health</h2><p>What <code>es_check()</code> finds in 0.3&nbsp;s.");
	if (counts[3] > 0)
	{
		appendStringInfoString(out, " That was too little for these, which take a call of their own: <span id=unfinished>");
		put_names(out, n - counts[3], n);
		appendStringInfoString(out, "</span>.");
	}
	appendStringInfoString(out, "</p>");
	put_findings(out, "ill", 0, ill);
	appendStringInfo(out, "<details><summary>%d checks found nothing wrong</summary>", counts[2]);
	put_findings(out, "well", ill, ill + counts[2]);
	appendStringInfoString(out, "</details></section>\n");
	return out;
}

/* The whole store on one page. */
void
EsReportStore(EsReport *report)
{
	Overview	overview = {.report = report};
	StringInfo	health;
	int			errors;
	int			warnings;

	read_log(&overview);
	SPI_connect();
	health = make_health(&errors, &warnings);
	appendStringInfoString(report->out, "<div class=tiles>");
	put_size_tiles(report);
	put_care_tiles(report, errors, warnings);
	appendStringInfoString(report->out, "</div>\n");
	put_hours(&overview);
	appendStringInfoString(report->out, "<div class=pair>");
	put_life(&overview);
	put_types(&overview);
	appendStringInfoString(report->out, "</div>");
	put_projections(report);
	put_view(report, "es_stat_subscription", "subscriptions", "Subscriptions");
	put_view(report, "es_progress", "progress", "Under way");
	appendStringInfoString(report->out, "<div class=pair>");
	put_largest(&overview);
	put_busiest(&overview);
	appendStringInfoString(report->out, "</div>");
	appendBinaryStringInfo(report->out, health->data, health->len);
	SPI_finish();
}
