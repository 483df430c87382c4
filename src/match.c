/*
 * match.c: queries over event types and tags, from JSON to a walk.
 *
 * The JSON is that of the public specification of dynamic consistency
 * boundaries, taken strictly: a misspelt key must not turn a condition into
 * one that always holds.
 *
 * An item with tags is answered from the index on (tag, position) alone.  It
 * walks all of its tags at once: the one that is behind jumps to where the
 * one ahead stands, so the work is bounded by the rarest tag, and nobody has
 * to know which that is.  An item without tags walks the log.  The items'
 * walks are merged by position.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "compat.h"
#include "match.h"
#include "scan.h"
#include "stream.h"
#include "tag.h"

/* ----- parsing ----- */

static void
report_query(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid query"),
			 errdetail("%s", detail),
			 errhint("A query is {} for all events, or {\"items\": [{\"types\": [...], \"tags\": [...]}, ...]}.")));
}

/* The elements of a JSON array, each as one JsonbValue; their number. */
static int
array_elements(JsonbValue *value, int max, const char *name, JsonbValue **elements)
{
	JsonbContainer *array = value->val.binary.data;
	int			n;

	if (value->type != jbvBinary || !JsonContainerIsArray(array))
		report_query(psprintf("\"%s\" must be an array.", name));
	n = JsonContainerSize(array);
	if (n > max)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the query is too large"),
				 errdetail("\"%s\" has %d elements; the limit is %d.", name, n, max)));
	*elements = palloc(Max(n, 1) * sizeof(JsonbValue));
	for (int i = 0; i < n; i++)
		(*elements)[i] = *getIthJsonbValueFromContainer(array, i);
	return n;
}

static int
compare_names(const void *a, const void *b)
{
	const text *left = *(text *const *) a;
	const text *right = *(text *const *) b;
	int			llen = VARSIZE_ANY_EXHDR(left);
	int			rlen = VARSIZE_ANY_EXHDR(right);
	int			order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(llen, rlen));

	return order != 0 ? order : llen - rlen;
}

/* Sort names and keep each once; answers how many remain. */
int
EsNamesMakeSet(text **names, int n)
{
	int			kept = 0;

	qsort(names, n, sizeof(text *), compare_names);
	for (int i = 0; i < n; i++)
		if (i == 0 || compare_names(&names[i], &names[kept - 1]) != 0)
			names[kept++] = names[i];
	return kept;
}

/* An array of names as a sorted set; its size. */
static int
parse_names(JsonbValue *value, const char *key, int max, int max_bytes,
			text ***names)
{
	JsonbValue *elements;
	int			n = array_elements(value, max, key, &elements);

	*names = palloc(Max(n, 1) * sizeof(text *));
	for (int i = 0; i < n; i++)
	{
		if (elements[i].type != jbvString)
			report_query(psprintf("\"%s\" must hold strings only.", key));
		(*names)[i] = cstring_to_text_with_len(elements[i].val.string.val,
											   elements[i].val.string.len);
		if (!EsNameIsValid((*names)[i], max_bytes))
			report_query(psprintf("\"%s\" holds a name that no event can have: \"%s\".",
								  key, text_to_cstring((*names)[i])));
	}
	return EsNamesMakeSet(*names, n);
}

/* Does the JSON string value say this? */
static bool
key_is(const JsonbValue *key, const char *name)
{
	return key->val.string.len == (int) strlen(name) &&
		memcmp(key->val.string.val, name, key->val.string.len) == 0;
}

static void
parse_item(JsonbValue *value, EsBoundaryItem *item)
{
	JsonbIterator *it;
	JsonbValue	key;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		report_query("Each of \"items\" must be an object.");
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		JsonbValue	member;

		(void) JsonbIteratorNext(&it, &member, true);
		if (key_is(&key, "types"))
			item->ntypes = parse_names(&member, "types", ES_MAX_QUERY_TYPES,
									   ES_MAX_EVENT_TYPE, &item->types);
		else if (key_is(&key, "tags"))
			item->ntags = parse_names(&member, "tags", ES_MAX_TAGS, ES_MAX_TAG,
									  &item->tags);
		else
			report_query(psprintf("An item has no key \"%s\".",
								  pnstrdup(key.val.string.val, key.val.string.len)));
	}
}

static void
parse_items(JsonbValue *value, EsBoundary *query)
{
	JsonbValue *elements;

	query->nitems = array_elements(value, ES_MAX_QUERY_ITEMS, "items", &elements);
	if (query->nitems == 0)
		report_query("\"items\" is empty; leave it out to match all events.");
	query->items = palloc0(query->nitems * sizeof(EsBoundaryItem));
	for (int i = 0; i < query->nitems; i++)
		parse_item(&elements[i], &query->items[i]);
}

/* 22023 for what is no query, 54000 for one that is too large. */
EsBoundary *
EsBoundaryParse(Jsonb *json)
{
	EsBoundary    *query = palloc0(sizeof(EsBoundary));
	JsonbIterator *it;
	JsonbValue	key;

	if (!JB_ROOT_IS_OBJECT(json))
		report_query("It is no JSON object.");
	it = JsonbIteratorInit(&json->root);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		JsonbValue	member;

		(void) JsonbIteratorNext(&it, &member, true);
		if (!key_is(&key, "items"))
			report_query(psprintf("A query has no key \"%s\".",
								  pnstrdup(key.val.string.val, key.val.string.len)));
		parse_items(&member, query);
	}
	if (query->nitems == 0)		/* all events: one item that asks for nothing */
	{
		query->nitems = 1;
		query->items = palloc0(sizeof(EsBoundaryItem));
	}
	for (int i = 0; i < query->nitems; i++)
		query->broad |= query->items[i].ntags == 0;
	return query;
}

/* ----- a single event ----- */

/* Is the name in the set that EsNamesMakeSet made? */
bool
EsNamesInclude(text **names, int n, text *name)
{
	return n > 0 && bsearch(&name, names, n, sizeof(text *), compare_names) != NULL;
}

static bool
item_matches(const EsBoundaryItem *item, text *event_type, text **tags, int ntags)
{
	if (item->ntypes > 0 && !EsNamesInclude(item->types, item->ntypes, event_type))
		return false;
	for (int i = 0; i < item->ntags; i++)
		if (!EsNamesInclude(tags, ntags, item->tags[i]))
			return false;
	return true;
}

/* Would an event of the type, with the tags (a checked set or NULL), match? */
bool
EsBoundaryMatches(const EsBoundary *query, text *event_type, ArrayType *tags)
{
	Datum	   *elements;
	int			ntags = EsTagsDeconstruct(tags, &elements);
	text	  **names = palloc(Max(ntags, 1) * sizeof(text *));

	for (int i = 0; i < ntags; i++)
		names[i] = DatumGetTextPP(elements[i]);
	for (int i = 0; i < query->nitems; i++)
		if (item_matches(&query->items[i], event_type, names, ntags))
			return true;
	return false;
}

/* ----- walking ----- */

/* Along one index: of a tag, or of the log. */
typedef struct Cursor
{
	bool		along_log;		/* and not along a tag */
	EsScan	   *log;			/* then: the walk; NULL: not begun */
	IndexScanDesc scan;			/* else: of es_event_tag */
	TupleTableSlot *slot;		/* the current row; of the log, the event */
	ScanKeyData keys[2];		/* the tag and the position */
	bool		index_only;		/* the row itself is not looked at without need */
	Buffer		visibility;		/* page of the visibility map last looked at */
	bool		begun;
	bool		done;
	int64		position;		/* of the current row */
} Cursor;

/* Along one item: all of its tags, or the log. */
typedef struct ItemWalk
{
	const EsBoundaryItem *item;
	Cursor	   *cursors;
	int			ncursors;
	bool		done;
	int64		position;		/* of the current match */
} ItemWalk;

struct EsMatchScan
{
	Relation	event;			/* es_event, opened by the caller */
	Relation	event_tag;		/* NULL where no item has tags */
	Relation	position_key;
	Relation	tag_key;		/* like event_tag */
	Snapshot	snapshot;
	ScanDirection direction;
	int64		last;			/* where the walk ends, inclusive */
	int64		next;			/* where it goes on */
	ItemWalk   *walks;
	int			nwalks;
	int64		border;			/* archived up to here, if the snapshot is fixed */
	IndexScanDesc fetch;		/* of the events themselves, by position */
	TupleTableSlot *slot;		/* the current event of es_event */
	EsScan	   *archived;		/* of the current event, where it is archived */
};

/* Is a behind b, in the direction of the walk? */
static inline bool
is_behind(const EsMatchScan *scan, int64 a, int64 b)
{
	return ScanDirectionIsForward(scan->direction) ? a < b : a > b;
}

/* Be ready to walk a tag, or the log (NULL); with_type: to tell the rows' types. */
static void
cursor_init(EsMatchScan *scan, Cursor *cursor, text *tag, bool with_type)
{
	bool		forward = ScanDirectionIsForward(scan->direction);

	cursor->along_log = tag == NULL;
	if (cursor->along_log)
		return;
	ScanKeyEntryInitialize(&cursor->keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(tag));
	ScanKeyInit(&cursor->keys[1], 2,
				forward ? BTGreaterEqualStrategyNumber : BTLessEqualStrategyNumber,
				forward ? F_INT8GE : F_INT8LE, Int64GetDatum(0));
	cursor->slot = table_slot_create(scan->event_tag, NULL);
	cursor->scan = EsIndexBeginScan(scan->event_tag, scan->tag_key, scan->snapshot, 2);
	cursor->index_only = !with_type;
	cursor->scan->xs_want_itup = cursor->index_only;
	cursor->visibility = InvalidBuffer;
}

static void
cursor_end(Cursor *cursor)
{
	if (cursor->log != NULL)
		EsScanEnd(cursor->log);
	cursor->log = NULL;
	if (cursor->along_log)
		return;
	if (BufferIsValid(cursor->visibility))
		ReleaseBuffer(cursor->visibility);
	index_endscan(cursor->scan);
	ExecDropSingleTupleTableSlot(cursor->slot);
}

/*
 * Move to the next entry of a tag in the index whose row the snapshot sees.
 * Where all of a page is visible to everybody, the row need not be fetched.
 * A row is never updated, so that there is at most one to an entry.
 */
static bool
next_entry(EsMatchScan *scan, Cursor *cursor)
{
	ItemPointer tid;
	bool		isnull;

	while ((tid = index_getnext_tid(cursor->scan, scan->direction)) != NULL)
	{
		BlockNumber block = ItemPointerGetBlockNumber(tid);

		CHECK_FOR_INTERRUPTS();
		if (VM_ALL_VISIBLE(scan->event_tag, block, &cursor->visibility))
			PredicateLockPage(scan->event_tag, block, scan->snapshot);
		else if (!index_fetch_heap(cursor->scan, cursor->slot))
			continue;
		cursor->position = DatumGetInt64(index_getattr(cursor->scan->xs_itup, 2,
													   cursor->scan->xs_itupdesc,
													   &isnull));
		return true;
	}
	return false;
}

/* Move to the next row; false, and done, when there is none. */
static bool
cursor_step(EsMatchScan *scan, Cursor *cursor)
{
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	if (cursor->index_only)
	{
		cursor->done = !next_entry(scan, cursor);
		return !cursor->done;
	}
	if (cursor->along_log)
		cursor->slot = EsScanNext(cursor->log);
	if (cursor->along_log ? cursor->slot == NULL :
		!index_getnext_slot(cursor->scan, scan->direction, cursor->slot))
	{
		cursor->done = true;
		return false;
	}
	cursor->position = DatumGetInt64(slot_getattr(cursor->slot, cursor->along_log ?
												  (int) ES_EVENT_POSITION : (int) ES_EVENT_TAG_POSITION,
												  &isnull));
	return true;
}

/* Begin anew at a position. */
static void
cursor_restart(EsMatchScan *scan, Cursor *cursor, int64 position)
{
	bool		forward = ScanDirectionIsForward(scan->direction);

	cursor->begun = true;
	if (!cursor->along_log)
	{
		cursor->keys[1].sk_argument = Int64GetDatum(position);
		index_rescan(cursor->scan, cursor->keys, 2, NULL, 0);
		return;
	}
	cursor_end(cursor);
	cursor->log = EsScanPositions(scan->event, scan->snapshot,
								  forward ? position : scan->last,
								  forward ? scan->last : position, scan->direction);
}

/*
 * Move to the first row at or past a position.  The neighbour is tried before
 * the index is descended anew.
 */
static bool
cursor_seek(EsMatchScan *scan, Cursor *cursor, int64 position)
{
	if (cursor->done)
		return false;
	if (cursor->begun)
	{
		if (!is_behind(scan, cursor->position, position))
			return true;
		if (!cursor_step(scan, cursor))
			return false;
		if (!is_behind(scan, cursor->position, position))
			return true;
	}
	cursor_restart(scan, cursor, position);
	return cursor_step(scan, cursor);
}

static bool
type_matches(const EsBoundaryItem *item, const Cursor *cursor)
{
	bool		isnull;
	text	   *type;

	if (item->ntypes == 0)
		return true;
	type = DatumGetTextPP(slot_getattr(cursor->slot, cursor->along_log ?
									   (int) ES_EVENT_EVENT_TYPE : (int) ES_EVENT_TAG_EVENT_TYPE,
									   &isnull));
	return EsNamesInclude(item->types, item->ntypes, type);
}

/* Move the item to its first match at or past a position, or to its end. */
static void
walk_seek(EsMatchScan *scan, ItemWalk *walk, int64 position)
{
	for (;;)
	{
		for (int i = 0; i < walk->ncursors; i++)
		{
			Cursor	   *cursor = &walk->cursors[i];

			if (!cursor_seek(scan, cursor, position) ||
				is_behind(scan, scan->last, cursor->position))
			{
				walk->done = true;
				return;
			}
			position = cursor->position;
		}
		if (walk->cursors[0].position != position)
			continue;			/* one jumped ahead: the others have to follow */
		if (type_matches(walk->item, &walk->cursors[0]))
			break;
		position += ScanDirectionIsForward(scan->direction) ? 1 : -1;
	}
	walk->position = position;
}

static void
walk_init(EsMatchScan *scan, ItemWalk *walk, const EsBoundaryItem *item)
{
	walk->item = item;
	walk->ncursors = Max(item->ntags, 1);
	walk->cursors = palloc0(walk->ncursors * sizeof(Cursor));
	for (int i = 0; i < walk->ncursors; i++)
		cursor_init(scan, &walk->cursors[i], item->ntags == 0 ? NULL : item->tags[i],
					i == 0 && item->ntypes > 0);
}

static void
open_event_tag(EsMatchScan *scan, const EsBoundary *query)
{
	const EsStore *store;

	for (int i = 0; i < query->nitems && scan->event_tag == NULL; i++)
		if (query->items[i].ntags > 0)
		{
			scan->event_tag = EsEventTagOpen(&store, AccessShareLock);
			scan->tag_key = index_open(store->tag_key, AccessShareLock);
		}
}

/*
 * Begin to walk the events that match, from position first to last, both
 * inclusive.  Checks no privilege.  The snapshot, and what is in memory here,
 * must stay until EsMatchEnd.
 */
EsMatchScan *
EsMatchBegin(Relation event, const EsStore *store, const EsBoundary *query,
			 Snapshot snapshot, int64 first, int64 last, ScanDirection direction)
{
	EsMatchScan *scan = palloc0(sizeof(EsMatchScan));

	scan->event = event;
	scan->position_key = index_open(store->position_key, AccessShareLock);
	open_event_tag(scan, query);
	scan->snapshot = snapshot;
	scan->direction = direction;
	scan->next = first;
	scan->last = last;
	scan->border = IsMVCCSnapshot(snapshot) ? EsArchiveLastPosition(snapshot) : 0;
	scan->slot = table_slot_create(event, NULL);
	scan->fetch = EsIndexBeginScan(event, scan->position_key, snapshot, 1);
	scan->nwalks = query->nitems;
	scan->walks = palloc0(scan->nwalks * sizeof(ItemWalk));
	for (int i = 0; i < scan->nwalks; i++)
		walk_init(scan, &scan->walks[i], &query->items[i]);
	return scan;
}

/* Of the items, the one that matches next; NULL at the end. */
static ItemWalk *
nearest_walk(EsMatchScan *scan)
{
	ItemWalk   *nearest = NULL;

	for (int i = 0; i < scan->nwalks; i++)
	{
		ItemWalk   *walk = &scan->walks[i];

		if (!walk->done && (!walk->cursors->begun ||
							is_behind(scan, walk->position, scan->next)))
			walk_seek(scan, walk, scan->next);
		if (!walk->done && (nearest == NULL ||
							is_behind(scan, walk->position, nearest->position)))
			nearest = walk;
	}
	return nearest;
}

/* Read an event that a tag has led to, from where it is; NULL if nowhere. */
static TupleTableSlot *
fetch_event(EsMatchScan *scan, int64 position)
{
	ScanKeyData key;

	if (position > scan->border)
	{
		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(position));
		index_rescan(scan->fetch, &key, 1, NULL, 0);
		if (index_getnext_slot(scan->fetch, ForwardScanDirection, scan->slot))
			return scan->slot;
		if (IsMVCCSnapshot(scan->snapshot))
			return NULL;
	}
	scan->archived = EsScanPositions(scan->event, scan->snapshot, position, position,
									 ForwardScanDirection);
	return EsScanNext(scan->archived);
}

static void
forget_event(EsMatchScan *scan)
{
	if (scan->archived != NULL)
		EsScanEnd(scan->archived);
	scan->archived = NULL;
}

/*
 * The next event that matches, its position, and the number of the item that
 * it matches, from 1.  NULL at the end.  The slot is the scan's and is good
 * until the next call.
 */
TupleTableSlot *
EsMatchNext(EsMatchScan *scan, int64 *position, int *item)
{
	ItemWalk   *walk;
	TupleTableSlot *slot;

	while ((walk = nearest_walk(scan)) != NULL)
	{
		scan->next = walk->position +
			(ScanDirectionIsForward(scan->direction) ? 1 : -1);
		forget_event(scan);
		slot = walk->cursors->along_log ? walk->cursors->slot :
			fetch_event(scan, walk->position);
		if (slot == NULL && !walk->cursors->along_log)
			continue;			/* a tag without its event: es_check() tells */
		*position = walk->position;
		if (item != NULL)
			*item = (int) (walk - scan->walks) + 1;
		return slot;
	}
	return NULL;
}

void
EsMatchEnd(EsMatchScan *scan)
{
	for (int i = 0; i < scan->nwalks; i++)
		for (int j = 0; j < scan->walks[i].ncursors; j++)
			cursor_end(&scan->walks[i].cursors[j]);
	forget_event(scan);
	index_endscan(scan->fetch);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->position_key, NoLock);
	if (scan->event_tag != NULL)
	{
		index_close(scan->tag_key, NoLock);
		table_close(scan->event_tag, NoLock);
	}
	pfree(scan);
}
