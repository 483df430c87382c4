/*
 * archive_list.c: the streams that have archived events, by name.
 *
 * The archive has no order of names as a whole, only each segment has.  So the
 * list is gathered segment by segment: names are collected, and sorted and
 * thinned out when there are too many.  Who wants the first hundred behind a
 * name reads a block or two of each segment.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "archive.h"

#define LIST_LEAST 4096			/* names collected before they are sorted */

/* Names on their way. */
typedef struct Collector
{
	const text *after;			/* only behind it; NULL: all */
	const text *category;		/* only of this category; NULL: all */
	text	   *prefix;			/* it and a dash */
	int64		max_count;		/* no more than so many */
	EsArchiveStream *streams;
	int64		n;
	int64		room;
	int64		limit;			/* sort when there are so many */
	const text *bound;			/* names behind it are not wanted; NULL: all */
	MemoryContext context;
} Collector;

static int
compare_names(const text *a, const text *b)
{
	Size		alen = VARSIZE_ANY_EXHDR(a);
	Size		blen = VARSIZE_ANY_EXHDR(b);
	int			order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(alen, blen));

	return order != 0 ? order : (alen > blen) - (alen < blen);
}

static bool
begins_with(const text *name, const text *prefix)
{
	return VARSIZE_ANY_EXHDR(name) >= VARSIZE_ANY_EXHDR(prefix) &&
		memcmp(VARDATA_ANY(name), VARDATA_ANY(prefix), VARSIZE_ANY_EXHDR(prefix)) == 0;
}

/* By name; of one name, the earliest first. */
static int
compare_streams(const void *a, const void *b)
{
	const EsArchiveStream *left = a;
	const EsArchiveStream *right = b;
	int			order = compare_names(left->stream_id, right->stream_id);

	return order != 0 ? order :
		(left->segment > right->segment) - (left->segment < right->segment);
}

/* Sort, keep each name once, and no more than are wanted. */
static void
thin_out(Collector *c)
{
	int64		kept = 0;

	if (c->n > 1)
		qsort(c->streams, c->n, sizeof(EsArchiveStream), compare_streams);
	for (int64 i = 0; i < c->n; i++)
	{
		if (kept > 0 && compare_names(c->streams[kept - 1].stream_id,
									  c->streams[i].stream_id) == 0)
			pfree(c->streams[i].stream_id);
		else if (kept < c->max_count)
			c->streams[kept++] = c->streams[i];
		else
			pfree(c->streams[i].stream_id);
	}
	c->n = kept;
	c->bound = kept == c->max_count && kept > 0 ? c->streams[kept - 1].stream_id : NULL;
	c->limit = Max(LIST_LEAST, 2 * kept);
}

static void
add_stream(Collector *c, const EsSegmentRow *first, int64 segment)
{
	MemoryContext saved = MemoryContextSwitchTo(c->context);

	if (c->n == c->limit)
		thin_out(c);
	if (c->n == c->room)
	{
		c->room = Max(LIST_LEAST, 2 * c->room);
		c->streams = c->streams == NULL ?
			palloc_extended(c->room * sizeof(EsArchiveStream), MCXT_ALLOC_HUGE) :
			repalloc_huge(c->streams, c->room * sizeof(EsArchiveStream));
	}
	c->streams[c->n++] = (EsArchiveStream)
	{
		(text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(first->texts[ES_SEGMENT_STREAM])),
			segment, first->recorded_at
	};
	MemoryContextSwitchTo(saved);
}

/* The first event that a segment has of a stream; false: no more of it. */
static bool
visit_stream(const EsSegmentRow *first, int64 segment, void *arg)
{
	Collector  *c = arg;
	const text *name = (const text *) first->texts[ES_SEGMENT_STREAM];

	CHECK_FOR_INTERRUPTS();
	if (c->bound != NULL && compare_names(name, c->bound) > 0)
		return false;
	if (c->after != NULL && compare_names(name, c->after) <= 0)
		return true;
	if (c->category == NULL || compare_names(name, c->category) == 0 ||
		begins_with(name, c->prefix))
		add_stream(c, first, segment);
	else if (compare_names(name, c->prefix) > 0)
		return false;
	return true;
}

/*
 * The streams behind a name, of a category, that have archived events: no
 * more than max_count, by name; *n is their number.
 */
EsArchiveStream *
EsArchiveListStreams(Snapshot snapshot, const text *after, const text *category,
					 int64 max_count, int64 *n)
{
	Collector	c = {.after = after,.category = category,.max_count = max_count,
	.limit = LIST_LEAST,.context = CurrentMemoryContext};
	const text *from = after;

	*n = 0;
	if (max_count == 0)
		return NULL;
	if (category != NULL)
	{
		c.prefix = cstring_to_text(psprintf("%s-", text_to_cstring(category)));
		if (after == NULL || compare_names(after, category) < 0)
			from = category;
	}
	EsArchiveVisitStreams(snapshot, from, visit_stream, &c);
	thin_out(&c);
	*n = c.n;
	return c.streams;
}
