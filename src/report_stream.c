/*
 * report_stream.c: the page about one stream: its events, each with what it
 * says and the state after it.
 *
 * Of a long stream the first and the last events are shown, and how many lie
 * between.  The columns over its life are exact whatever its length: versions
 * have no holes, so two probes of an index count what happened in between.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "aggregate.h"
#include "attempt.h"
#include "category.h"
#include "fold.h"
#include "lifecycle.h"
#include "report.h"
#include "scan.h"
#include "snapshot.h"
#include "stream.h"
#include "upcast.h"

#define FIRST_SHOWN 50			/* events of the beginning of a long stream */
#define LAST_SHOWN 150			/* and of its end */
#define TEXT_SHOWN 4000			/* bytes of one event's data or state */
#define LINE 72				/* bytes of JSON that need no line breaks */
#define COLUMNS 48

/* One event as it is shown. */
typedef struct Entry
{
	int64		version;
	int64		position;
	TimestampTz at;
	char	   *type;
	char	   *data;			/* JSON with line breaks */
	char	   *metadata;		/* likewise; NULL: none */
	Datum		tags;			/* text[]; 0: none */
	char	   *state;			/* JSON after the event; NULL: SQL's null */
} Entry;

typedef struct Timeline
{
	EsReport   *report;
	text	   *stream_id;
	int64		version;		/* of the stream */
	int64		shown_from;		/* first version that readers are shown */
	int64		head_to;		/* shown: from shown_from up to here … */
	int64		tail_from;		/* … and from here on; head_to + 1: all */
	char	   *aggregate;		/* that folds it; NULL: none */
	int			naggregates;	/* that could */
	bool		has_states;		/* the fold came through */
	char	   *problem;		/* or why it did not */
	List	   *entries;
	MemoryContext context;		/* of all this */
} Timeline;

/* ----- reading ----- */

/* JSON as text: with line breaks, unless it fits into a line. */
static char *
json_text(Datum value)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);
	char	   *text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));

	return strlen(text) <= LINE ? text :
		JsonbToCStringIndent(NULL, &jsonb->root, VARSIZE(jsonb));
}

/* The same with line breaks in any case, for comparing. */
static char *
indented(Datum value)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);

	return JsonbToCStringIndent(NULL, &jsonb->root, VARSIZE(jsonb));
}

static Entry *
add_entry(Timeline *timeline, TupleTableSlot *slot)
{
	MemoryContext saved = MemoryContextSwitchTo(timeline->context);
	Entry	   *entry = palloc0(sizeof(Entry));
	Datum		value;
	bool		isnull;

	entry->version = DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull));
	entry->position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
	entry->at = DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull));
	entry->type = TextDatumGetCString(slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull));
	entry->data = json_text(slot_getattr(slot, ES_EVENT_DATA, &isnull));
	value = slot_getattr(slot, ES_EVENT_METADATA, &isnull);
	if (!isnull)
		entry->metadata = json_text(value);
	value = slot_getattr(slot, ES_EVENT_TAGS, &isnull);
	if (!isnull)
		entry->tags = PointerGetDatum(DatumGetArrayTypePCopy(value));
	timeline->entries = lappend(timeline->entries, entry);
	MemoryContextSwitchTo(saved);
	return entry;
}

/* Note the event that was folded last, and the state after it. */
static void
note_folded(Timeline *timeline, EsFold *fold)
{
	Entry	   *entry = add_entry(timeline, fold->shown);
	Jsonb	   *state = EsFoldStateJsonb(fold->aggregate);
	MemoryContext saved = MemoryContextSwitchTo(timeline->context);

	if (state != NULL)
		entry->state = indented(JsonbPGetDatum(state));
	MemoryContextSwitchTo(saved);
	if (state != NULL)
		pfree(state);
}

/* Fold from one version to another, having folded what comes before. */
static void
fold_stretch(Timeline *timeline, EsAggregate *aggregate, int64 from, int64 to)
{
	EsFold		fold;

	EsFoldBegin(&fold, aggregate, timeline->report->event, timeline->stream_id,
				timeline->report->snapshot);
	fold.show_all = true;
	fold.limit.version = from - 1;
	fold.limit.at = DT_NOEND;
	EsSnapshotFold(&fold);
	EsFoldScanEnd(&fold);
	fold.limit.version = to;
	EsFoldScan(&fold, from);
	while (EsFoldNext(&fold))
		note_folded(timeline, &fold);
	EsFoldEnd(&fold);
}

static bool
fold_shown(void *arg)
{
	Timeline   *timeline = arg;
	EsAggregate *aggregate = EsAggregateOpen(timeline->aggregate);

	fold_stretch(timeline, aggregate, timeline->shown_from, timeline->head_to);
	if (timeline->head_to < timeline->version)
		fold_stretch(timeline, aggregate, timeline->tail_from, timeline->version);
	EsAggregateClose(aggregate);
	timeline->has_states = true;
	return true;
}

/*
 * Fold in a subtransaction: an expression of the aggregate may fail, and the
 * page is wanted then more than ever.
 */
static void
try_to_fold(Timeline *timeline)
{
	ErrorData  *error;

	if (EsAttempt(fold_shown, timeline, &error))
		return;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	timeline->problem = error->message;
	timeline->entries = NIL;
}

/* Read events without a state, in the newest form of their types. */
static void
read_stretch(Timeline *timeline, int64 from, int64 to)
{
	EsReport   *report = timeline->report;
	EsScan	   *scan = EsScanStream(report->event, report->snapshot, timeline->stream_id,
									from, to, ForwardScanDirection);
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(report->event), false);
	TupleTableSlot *slot;

	while ((slot = EsScanNext(scan)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		(void) add_entry(timeline, EsUpcastSlot(upcast, slot));
	}
	EsUpcastEnd(upcast);
	EsScanEnd(scan);
}

static void
read_timeline(Timeline *timeline)
{
	List	   *aggregates = EsAggregatesOfStream(timeline->stream_id);

	timeline->naggregates = list_length(aggregates);
	if (aggregates != NIL)
	{
		timeline->aggregate = linitial(aggregates);
		try_to_fold(timeline);
	}
	if (timeline->has_states)
		return;
	read_stretch(timeline, timeline->shown_from, timeline->head_to);
	if (timeline->head_to < timeline->version)
		read_stretch(timeline, timeline->tail_from, timeline->version);
}

/* ----- columns over its life ----- */

/* The last version that was recorded before a time. */
static int64
version_before(Timeline *timeline, TimestampTz at)
{
	int64		low = timeline->shown_from - 1;
	int64		high = timeline->version;

	while (low < high)
	{
		int64		middle = low + (high - low + 1) / 2;
		EsEventKey	key;

		CHECK_FOR_INTERRUPTS();
		if (EsStreamEventRead(timeline->report->event, timeline->stream_id, middle,
							  timeline->report->snapshot, &key) &&
			key.recorded_at >= at)
			high = middle - 1;
		else
			low = middle;
	}
	return low;
}

static void
put_life(Timeline *timeline)
{
	StringInfo	out = timeline->report->out;
	Entry	   *first = linitial(timeline->entries);
	Entry	   *last = llast(timeline->entries);
	char	   *names[] = {"events"};
	EsBuckets	buckets = {.from = first->at,.n = COLUMNS};
	int64		before = timeline->shown_from - 1;

	if (timeline->version == timeline->shown_from)
		return;
	buckets.width = Max(last->at - first->at, 1) / COLUMNS + 1;
	buckets.counts = palloc0(COLUMNS * sizeof(buckets.counts[0]));
	for (int i = 0; i < COLUMNS; i++)
	{
		int64		until = version_before(timeline, buckets.from + (i + 1) * buckets.width);

		buckets.counts[i][0] = until - before;
		before = until;
	}
	appendStringInfoString(out, "<section><h2>From the first event to the last</h2><p>Each column is ");
	EsHtmlSeconds(out, buckets.width / (double) USECS_PER_SEC);
	appendStringInfoString(out, ". Every event is counted.</p>");
	EsChartColumns(out, "life", &buckets, names, 1);
	appendStringInfoString(out, "</section>\n");
}

/* ----- the events ----- */

/* Is this line, without the comma that may end it, one of the text's? */
static bool
has_line(const char *text, const char *line, int len)
{
	while (len > 0 && line[len - 1] == ',')
		len--;
	while (text != NULL && *text != '\0')
	{
		int			n = strcspn(text, "\n");
		const char *end = text + n;

		while (n > 0 && text[n - 1] == ',')
			n--;
		if (n == len && memcmp(text, line, len) == 0)
			return true;
		text = *end == '\0' ? end : end + 1;
	}
	return false;
}

/* A state, with the lines marked that the state before did not have. */
static void
put_state(StringInfo out, const char *state, const char *before)
{
	int			left = TEXT_SHOWN;

	appendStringInfoString(out, "<pre class=state>");
	for (const char *line = state; *line != '\0' && left > 0;)
	{
		int			len = strcspn(line, "\n");
		bool		is_new = before != NULL && !has_line(before, line, len);

		appendStringInfoString(out, is_new ? "<mark>" : "");
		EsHtmlText(out, pnstrdup(line, len), left);
		appendStringInfoString(out, is_new ? "</mark>\n" : "\n");
		left -= len;
		line += len + (line[len] == '\n');
		if (left <= 0 && *line != '\0')
			appendStringInfo(out, "&hellip; <i class=u>%d bytes</i>", (int) strlen(state));
	}
	appendStringInfoString(out, "</pre>");
}

static void
put_tags(StringInfo out, Datum array)
{
	Datum	   *tags;
	int			n;

	if (array == 0)
		return;
	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &tags, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		appendStringInfoString(out, "<span class=tag>");
		EsHtmlText(out, TextDatumGetCString(tags[i]), 0);
		appendStringInfoString(out, "</span>");
	}
}

static void
put_entry(Timeline *timeline, const Entry *entry, const Entry *before)
{
	StringInfo	out = timeline->report->out;

	appendStringInfo(out, "<li%s id=\"v" INT64_FORMAT "\"><div class=who><h3><em>" INT64_FORMAT "</em>",
					 timeline->has_states ? "" : " class=plain", entry->version, entry->version);
	EsHtmlText(out, entry->type, 0);
	appendStringInfoString(out, "</h3><div>");
	EsHtmlTime(out, entry->at);
	appendStringInfo(out, "</div><div>position " INT64_FORMAT "</div>", entry->position);
	put_tags(out, entry->tags);
	appendStringInfoString(out, "</div><div><h4>Data</h4><pre class=data>");
	EsHtmlText(out, entry->data, TEXT_SHOWN);
	appendStringInfoString(out, "</pre>");
	if (entry->metadata != NULL)
	{
		appendStringInfoString(out, "<details><summary>Metadata</summary><pre>");
		EsHtmlText(out, entry->metadata, TEXT_SHOWN);
		appendStringInfoString(out, "</pre></details>");
	}
	appendStringInfoString(out, "</div>");
	if (timeline->has_states)
	{
		appendStringInfoString(out, "<div><h4>State after it</h4>");
		put_state(out, entry->state == NULL ? "null" : entry->state,
				  before == NULL ? NULL : before->state);
		appendStringInfoString(out, "</div>");
	}
	appendStringInfoString(out, "</li>\n");
}

static void
put_gap(StringInfo out, int64 from, int64 to)
{
	appendStringInfoString(out, "<li class=skipped>");
	EsHtmlCount(out, to - from + 1);
	appendStringInfo(out, " events, versions " INT64_FORMAT " to " INT64_FORMAT ", are not shown</li>\n",
					 from, to);
}

/* What the reader should know of the list before it. */
static void
put_events_head(Timeline *timeline)
{
	StringInfo	out = timeline->report->out;

	appendStringInfoString(out, "<section><h2>Events</h2><p>");
	if (timeline->problem != NULL)
	{
		appendStringInfoString(out, "The states could not be computed: ");
		EsHtmlText(out, timeline->problem, 500);
		appendStringInfoChar(out, '.');
	}
	else if (timeline->aggregate == NULL)
		appendStringInfoString(out, "No aggregate folds this stream, so no states are shown.");
	else
	{
		appendStringInfoString(out, "Each with the state after it, as aggregate ");
		EsHtmlText(out, timeline->aggregate, 100);
		appendStringInfoString(out, " folds it; what an event changed is marked.");
	}
	if (timeline->naggregates > 1)
		appendStringInfo(out, " There are %d aggregates for it.", timeline->naggregates);
	appendStringInfoString(out, "</p><ol class=events>\n");
}

static void
put_events(Timeline *timeline)
{
	const Entry *before = NULL;
	ListCell   *cell;

	put_events_head(timeline);
	foreach(cell, timeline->entries)
	{
		const Entry *entry = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		if (before != NULL && entry->version > before->version + 1)
		{
			put_gap(timeline->report->out, before->version + 1, entry->version - 1);
			before = NULL;		/* the state before this one is not known */
		}
		put_entry(timeline, entry, before);
		before = entry;
	}
	appendStringInfoString(timeline->report->out, "</ol></section>\n");
}

static void
put_tiles(Timeline *timeline)
{
	StringInfo	out = timeline->report->out;
	Entry	   *first = linitial(timeline->entries);
	Entry	   *last = llast(timeline->entries);
	double		first_age = (timeline->report->now - first->at) / (double) USECS_PER_SEC;
	double		last_age = (timeline->report->now - last->at) / (double) USECS_PER_SEC;

	appendStringInfoString(out, "<div class=tiles>");
	EsHtmlTile(out, "version", "Version", timeline->version);
	EsHtmlCount(out, timeline->version);
	EsHtmlTileEnd(out, timeline->shown_from == 1 ? "every event since its first" :
				  psprintf("events before version " INT64_FORMAT " are truncated", timeline->shown_from));
	EsHtmlTile(out, "age", "First event", floor(first_age));
	EsHtmlSeconds(out, Max(first_age, 0));
	EsHtmlTileEnd(out, "ago");
	EsHtmlTile(out, "idle", "Last event", floor(last_age));
	EsHtmlSeconds(out, Max(last_age, 0));
	EsHtmlTileEnd(out, "ago");
	appendStringInfoString(out, "</div>\n");
}

/* 42704 for a stream that never had an event. */
static int64
stream_version(EsReport *report, text *stream_id)
{
	EsStreamHead head = EsStreamHeadRead(report->event, stream_id, report->snapshot);

	if (head.version == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" does not exist", text_to_cstring(stream_id))));
	return head.version;
}

/* Which events are shown: all, or of a long stream both ends. */
static void
choose_events(Timeline *timeline)
{
	timeline->head_to = timeline->version;
	if (timeline->version - timeline->shown_from + 1 > FIRST_SHOWN + LAST_SHOWN)
		timeline->head_to = timeline->shown_from + FIRST_SHOWN - 1;
	timeline->tail_from = timeline->version - LAST_SHOWN + 1;
}

/* One stream on one page. */
void
EsReportStream(EsReport *report, text *stream_id)
{
	Timeline	timeline = {.report = report,.stream_id = stream_id,.context = CurrentMemoryContext};

	timeline.version = stream_version(report, stream_id);
	timeline.shown_from = EsStreamFirstShown(report->event, stream_id, report->snapshot);
	if (timeline.shown_from <= timeline.version)
	{
		choose_events(&timeline);
		read_timeline(&timeline);
	}
	if (timeline.entries == NIL)
	{
		appendStringInfoString(report->out, "<section><h2>Nothing to show</h2><p>The stream is deleted, or all its events are truncated.</p></section>\n");
		return;
	}
	put_tiles(&timeline);
	put_life(&timeline);
	put_events(&timeline);
}
