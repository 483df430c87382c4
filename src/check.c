/*
 * check.c: prove the store's invariants.
 *
 * Everything is counted under one snapshot.  The heap is walked once; then
 * each index is walked in its own order and must lead to exactly the same
 * rows.  The walk along (stream_id, version) proves the version runs, the one
 * along the position proves the order, with nothing to sort and nothing to
 * remember but the row before.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "archive_check.h"
#include "catalog.h"
#include "compat.h"
#include "log.h"
#include "scan.h"
#include "stream.h"
#include "tag.h"

/* A set of rows, summed up so that two walks can be compared. */
typedef struct RowSet
{
	int64		count;
	uint64		sum;			/* of the hashes of the rows' addresses */
} RowSet;

/* What the walk along the streams remembers of the event before. */
typedef struct StreamWalk
{
	StringInfoData stream_id;
	int64		version;
	int64		position;
	TimestampTz recorded_at;
	int64		streams;
} StreamWalk;

/* Where the results go. */
typedef struct CheckResult
{
	Tuplestorestate *rows;
	TupleDesc	desc;
} CheckResult;

PG_FUNCTION_INFO_V1(es_check);

static void report(CheckResult *result, const char *name, bool ok,
				   const char *format,...) pg_attribute_printf(4, 5);

static void
report(CheckResult *result, const char *name, bool ok, const char *format,...)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	char		detail[2048];
	va_list		args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	detail[pg_mbcliplen(detail, strlen(detail), sizeof(detail) - 1)] = '\0';
	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(ok ? "ok" : "error");
	values[2] = CStringGetTextDatum(detail);
	tuplestore_putvalues(result->rows, result->desc, values, nulls);
}

static void
add_row(RowSet *set, ItemPointer tid)
{
	uint64		address = ((uint64) ItemPointerGetBlockNumber(tid) << 16) |
		ItemPointerGetOffsetNumber(tid);

	set->count++;
	set->sum += hash_bytes_extended((const unsigned char *) &address,
									sizeof(address), 0);
}

static bool
same_rows(RowSet a, RowSet b)
{
	return a.count == b.count && a.sum == b.sum;
}

static bool
is_well_formed(TupleTableSlot *slot)
{
	bool		isnull;
	text	   *stream_id = DatumGetTextPP(slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull));
	text	   *event_type = DatumGetTextPP(slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull));
	Datum		metadata = slot_getattr(slot, ES_EVENT_METADATA, &isnull);

	return EsNameIsValid(stream_id, ES_MAX_STREAM_ID) &&
		EsNameIsValid(event_type, ES_MAX_EVENT_TYPE) &&
		(isnull || JB_ROOT_IS_OBJECT(DatumGetJsonbP(metadata)));
}

/* Add a tag of an event to a set, or take it away again (times = -1). */
static void
add_tag(RowSet *set, Datum tag, int64 position, Datum event_type, int times)
{
	text	   *name = DatumGetTextPP(tag);
	text	   *type = DatumGetTextPP(event_type);
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
										   VARSIZE_ANY_EXHDR(name), (uint64) position);

	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(type),
							   VARSIZE_ANY_EXHDR(type), hash);
	set->count += times;
	set->sum += times * hash;
}

static void
add_tags(RowSet *set, Datum tags, bool isnull, TupleTableSlot *event, int times)
{
	Datum	   *elements;
	int			n = EsTagsDeconstruct(isnull ? NULL : DatumGetArrayTypeP(tags), &elements);
	int64		position = DatumGetInt64(slot_getattr(event, ES_EVENT_POSITION, &isnull));
	Datum		type = slot_getattr(event, ES_EVENT_EVENT_TYPE, &isnull);

	for (int i = 0; i < n; i++)
		add_tag(set, elements[i], position, type, times);
}

/* What is asked of each event by itself, archived or not. */
typedef struct ContentFindings
{
	int64		malformed;
	RowSet		tags;			/* that the events were appended with */
} ContentFindings;

static void
visit_content(TupleTableSlot *slot, void *state)
{
	ContentFindings *found = state;
	bool		isnull;
	Datum		tags = slot_getattr(slot, ES_EVENT_TAGS, &isnull);

	if (!is_well_formed(slot))
		found->malformed++;
	add_tags(&found->tags, tags, isnull, slot, 1);
}

/*
 * Walk the heap; count rows whose names or metadata no append lets through,
 * and collect the tags that the events were appended with.
 */
static RowSet
walk_heap(Relation event, Snapshot snapshot, ContentFindings *found)
{
	TableScanDesc scan = table_beginscan(event, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	RowSet		set = {0, 0};
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext,
												  "es_check row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(per_row);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(per_row);
		add_row(&set, &slot->tts_tid);
		visit_content(slot, found);
	}
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(per_row);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return set;
}

static IndexScanDesc
begin_whole_index(Relation event, Relation index, Snapshot snapshot)
{
	IndexScanDesc scan = EsIndexBeginScan(event, index, snapshot, 0);

	index_rescan(scan, NULL, 0, NULL, 0);
	return scan;
}

/* Walk an index in its order, calling visit for each row it leads to. */
static RowSet
walk_index(Relation event, Oid index_oid, Snapshot snapshot,
		   void (*visit) (TupleTableSlot *slot, void *state), void *state)
{
	Relation	index = index_open(index_oid, AccessShareLock);
	IndexScanDesc scan = begin_whole_index(event, index, snapshot);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	RowSet		set = {0, 0};

	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		add_row(&set, &slot->tts_tid);
		if (visit != NULL)
			visit(slot, state);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return set;
}

/* What the visitors found wrong, the first of each kind in words. */
typedef struct StreamFindings
{
	StreamWalk	walk;
	int64		broken_runs;
	int64		disordered;
	char	   *first_broken;
	char	   *first_disordered;
	EsArchiveCheck *archive;	/* whose stretches come before es_event's */
} StreamFindings;

/* The first event of a stretch of a stream must follow the one before. */
static void
check_follows(StreamFindings *found, const text *id, int64 version,
			  int64 position, TimestampTz at)
{
	StreamWalk *walk = &found->walk;
	int			len = VARSIZE_ANY_EXHDR(id);

	if (walk->streams == 0 || walk->stream_id.len != len ||
		memcmp(walk->stream_id.data, VARDATA_ANY(id), len) != 0)
	{
		resetStringInfo(&walk->stream_id);
		appendBinaryStringInfo(&walk->stream_id, VARDATA_ANY(id), len);
		walk->version = 0;
		walk->position = 0;
		walk->recorded_at = DT_NOBEGIN;
		walk->streams++;
	}
	if (version != walk->version + 1 && found->broken_runs++ == 0)
		found->first_broken = psprintf("stream \"%s\" goes from version " INT64_FORMAT " to " INT64_FORMAT,
									   walk->stream_id.data, walk->version, version);
	if ((position <= walk->position || at < walk->recorded_at) &&
		found->disordered++ == 0)
		found->first_disordered = psprintf("stream \"%s\" at version " INT64_FORMAT,
										   walk->stream_id.data, version);
	walk->version = version;
	walk->position = position;
	walk->recorded_at = at;
}

/* Take in what is archived of the streams up to this one, or of all (NULL). */
static void
take_archived(StreamFindings *found, const text *up_to)
{
	while (EsArchiveCheckNextGroup(found->archive, up_to))
	{
		EsArchiveGroup *group = &found->archive->group;

		check_follows(found, group->stream_id, group->first_version,
					  group->first_position, group->first_at);
		found->walk.version = group->last_version;
		found->walk.position = group->last_position;
		found->walk.recorded_at = group->last_at;
	}
}

static void
visit_stream_event(TupleTableSlot *slot, void *state)
{
	bool		isnull;
	text	   *id = DatumGetTextPP(slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull));

	take_archived(state, id);
	check_follows(state, id,
				  DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull)),
				  DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull)),
				  DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull)));
}

static void
visit_id(TupleTableSlot *slot, void *state)
{
	bool		isnull;

	EsArchiveCheckId(state, DatumGetUUIDP(slot_getattr(slot, ES_EVENT_EVENT_ID, &isnull)));
}

/* The range of positions met, and whether they ascend. */
typedef struct PositionFindings
{
	int64		first;
	int64		last;
	bool		ascending;
} PositionFindings;

static void
visit_position(TupleTableSlot *slot, void *state)
{
	PositionFindings *found = state;
	bool		isnull;
	int64		position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));

	if (found->last == 0)
		found->first = position;
	else if (position <= found->last)
		found->ascending = false;
	found->last = position;
}

/* Replace the tags of events that es_retag changed by those they have now. */
static void
retag(const EsStore *store, Relation event, Snapshot snapshot, RowSet *tags)
{
	Relation	rel = table_open(store->retagged, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		int64		position = DatumGetInt64(slot_getattr(slot, ES_RETAGGED_POSITION, &isnull));
		EsScan	   *fetch = EsScanPositions(event, snapshot, position, position,
											ForwardScanDirection);
		TupleTableSlot *event_slot = EsScanNext(fetch);

		CHECK_FOR_INTERRUPTS();
		if (event_slot != NULL)
		{
			Datum		value = slot_getattr(event_slot, ES_EVENT_TAGS, &isnull);

			add_tags(tags, value, isnull, event_slot, -1);
			value = slot_getattr(slot, ES_RETAGGED_TAGS, &isnull);
			add_tags(tags, value, isnull, event_slot, 1);
		}
		EsScanEnd(fetch);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/* es_event_tag says what the events say, and its index what the table says. */
static void
check_tags(CheckResult *result, Relation event, Snapshot snapshot, RowSet wanted)
{
	const EsStore *store;
	Relation	rel = EsEventTagOpen(&store, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	RowSet		found = {0, 0};
	RowSet		rows = {0, 0};
	RowSet		by_index;

	retag(store, event, snapshot, &wanted);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		add_row(&rows, &slot->tts_tid);
		add_tag(&found, slot_getattr(slot, ES_EVENT_TAG_TAG, &isnull),
				DatumGetInt64(slot_getattr(slot, ES_EVENT_TAG_POSITION, &isnull)),
				slot_getattr(slot, ES_EVENT_TAG_EVENT_TYPE, &isnull), 1);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	by_index = walk_index(rel, store->tag_key, snapshot, NULL, NULL);
	table_close(rel, AccessShareLock);
	report(result, "tag agreement",
		   same_rows(wanted, found) && same_rows(rows, by_index),
		   "tags of the events " INT64_FORMAT ", in es_event_tag " INT64_FORMAT ", by its index " INT64_FORMAT "%s",
		   wanted.count, rows.count, by_index.count,
		   wanted.count == rows.count && !same_rows(wanted, found) ? ", not the same" : "");
}

static void
check_events(CheckResult *result, const EsStore *store, Relation event)
{
	Snapshot	snapshot = GetActiveSnapshot();
	StreamFindings streams = {0};
	PositionFindings positions = {0, 0, true};
	ContentFindings content = {0};
	EsArchiveCheck *archive;
	int64		drawn;
	RowSet		heap;
	RowSet		by_stream;
	RowSet		by_position;
	RowSet		by_id;

	initStringInfo(&streams.walk.stream_id);
	archive = streams.archive = EsArchiveCheckWalk(event, snapshot, visit_content, &content);
	positions.first = archive->first_position;
	positions.last = archive->last_position;
	heap = walk_heap(event, snapshot, &content);
	by_stream = walk_index(event, store->stream_key, snapshot,
						   visit_stream_event, &streams);
	take_archived(&streams, NULL);
	by_position = walk_index(event, store->position_key, snapshot,
							 visit_position, &positions);
	by_id = walk_index(event, store->id_key, snapshot, visit_id, archive);
	EsArchiveCheckId(archive, NULL);
	drawn = EsLastDrawn(store, NULL);

	if (streams.broken_runs == 0)
		report(result, "version runs", true, INT64_FORMAT " events in " INT64_FORMAT " streams",
			   heap.count + archive->events, streams.walk.streams);
	else
		report(result, "version runs", false, "%s; " INT64_FORMAT " such places",
			   streams.first_broken, streams.broken_runs);
	if (streams.disordered == 0)
		report(result, "stream order", true, "position and time follow the version");
	else
		report(result, "stream order", false, "%s is out of order; " INT64_FORMAT " such events",
			   streams.first_disordered, streams.disordered);
	report(result, "positions",
		   positions.ascending && positions.first >= 0 && positions.last <= drawn,
		   "first " INT64_FORMAT ", last " INT64_FORMAT ", last drawn " INT64_FORMAT "%s",
		   positions.first, positions.last, drawn,
		   positions.ascending ? "" : ", not ascending");
	report(result, "index agreement",
		   same_rows(heap, by_stream) && same_rows(heap, by_position) &&
		   same_rows(heap, by_id),
		   "rows in the table " INT64_FORMAT ", by position " INT64_FORMAT ", by event id " INT64_FORMAT ", by stream " INT64_FORMAT,
		   heap.count, by_position.count, by_id.count, by_stream.count);
	report(result, "content", content.malformed == 0, INT64_FORMAT " malformed", content.malformed);
	if (archive->problems == 0)
		report(result, "archive", true, INT64_FORMAT " events in " INT64_FORMAT " segments",
			   archive->events, archive->segments);
	else
		report(result, "archive", false, "%s; " INT64_FORMAT " such places",
			   archive->first_problem, archive->problems);
	check_tags(result, event, snapshot, content.tags);
	EsArchiveCheckEnd(archive);
}

/*
 * Is the trigger there, enabled always, and calling the store's function?
 * Trigger functions are renamed in the end; see comment.sql.
 */
static bool
trigger_is_armed(Relation event, Oid schema, const char *name,
				 const char *function)
{
	TriggerDesc *triggers = event->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (strcmp(trigger->tgname, name) == 0)
			return trigger->tgenabled == TRIGGER_FIRES_ALWAYS &&
				get_func_namespace(trigger->tgfoid) == schema &&
				strcmp(get_func_name(trigger->tgfoid), psprintf("zz_%s", function)) == 0;
	}
	return false;
}

static bool
archive_is_guarded(const EsStore *store)
{
	const Oid	tables[] = {store->archive_segment, store->archive_run, store->archive_key};
	bool		guarded = true;

	for (size_t i = 0; i < lengthof(tables); i++)
	{
		Relation	rel = table_open(tables[i], AccessShareLock);

		guarded &= trigger_is_armed(rel, store->schema, "es_archive_guard", "es_archive_guard") &&
			trigger_is_armed(rel, store->schema, "es_archive_guard_statement", "es_archive_guard");
		table_close(rel, AccessShareLock);
	}
	return guarded;
}

static void
check_triggers(CheckResult *result, const EsStore *store, Relation event)
{
	static const char *const triggers[][2] = {
		{"zz_es_event_insert", "es_event_insert"},
		{"aa_es_event_tag", "es_event_tag"},
		{"es_event_refuse", "es_event_refuse"},
		{"es_event_refuse_row", "es_event_refuse"},
		{"es_event_statement_begin", "es_event_statement"},
		{"es_event_statement_end", "es_event_statement"}
	};

	for (size_t i = 0; i < lengthof(triggers); i++)
		if (!trigger_is_armed(event, store->schema, triggers[i][0], triggers[i][1]))
		{
			report(result, "triggers", false,
				   "trigger \"%s\" is missing, not enabled always or not the store's",
				   triggers[i][0]);
			return;
		}
	if (!archive_is_guarded(store))
		report(result, "triggers", false,
			   "a trigger of the archive is missing, not enabled always or not the store's");
	else
		report(result, "triggers", true, "%d enabled always", (int) lengthof(triggers));
}

static void
check_relations(CheckResult *result, const EsStore *store)
{
	const Oid	relations[] = {
		store->event, store->position_key, store->id_key, store->stream_key,
		store->position_seq, store->gate, store->settled, store->event_tag,
		store->tag_key, store->retagged, store->archive_segment,
		store->archive_position_key, store->archive_run, store->archive_key
	};
	Oid			owner = EsExtensionOwner();
	char	   *foreign = NULL;
	char	   *unlogged = NULL;

	for (size_t i = 0; i < lengthof(relations); i++)
	{
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relations[i]));
		Form_pg_class form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for relation %u", relations[i]);
		form = (Form_pg_class) GETSTRUCT(tuple);
		if (form->relowner != owner)
			foreign = pstrdup(NameStr(form->relname));
		if (form->relpersistence != RELPERSISTENCE_PERMANENT)
			unlogged = pstrdup(NameStr(form->relname));
		ReleaseSysCache(tuple);
	}
	report(result, "ownership", foreign == NULL,
		   foreign == NULL ? "all relations belong to the extension's owner \"%s\"" :
		   "the extension's owner \"%s\" does not own \"%s\"",
		   GetUserNameFromId(owner, false), foreign);
	report(result, "persistence", unlogged == NULL,
		   unlogged == NULL ? "all relations are logged" :
		   "\"%s\" is not logged: a crash empties it", unlogged);
}

static bool
index_is_sound(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form;
	bool		sound;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	sound = form->indisunique && form->indisvalid && form->indisready &&
		form->indimmediate;
	ReleaseSysCache(tuple);
	return sound;
}

static void
check_definitions(CheckResult *result, const EsStore *store)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(store->position_seq));
	Form_pg_sequence seq;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for sequence %u", store->position_seq);
	seq = (Form_pg_sequence) GETSTRUCT(tuple);
	report(result, "sequence",
		   seq->seqincrement == 1 && seq->seqcache == 1 && !seq->seqcycle,
		   "increment " INT64_FORMAT ", cache " INT64_FORMAT ", %s",
		   seq->seqincrement, seq->seqcache, seq->seqcycle ? "cycle" : "no cycle");
	ReleaseSysCache(tuple);
	report(result, "unique indexes",
		   index_is_sound(store->position_key) && index_is_sound(store->id_key) &&
		   index_is_sound(store->stream_key) && index_is_sound(store->tag_key),
		   "position, event id, stream and version, tag and position");
}

/*
 * es_check() → (check_name text, status text, detail text)
 */
Datum
es_check(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CheckResult result;
	Relation	event;

	event = EsEventOpen(&store, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);
	result.rows = rsinfo->setResult;
	result.desc = rsinfo->setDesc;

	check_events(&result, store, event);
	check_triggers(&result, store, event);
	check_relations(&result, store);
	check_definitions(&result, store);
	table_close(event, AccessShareLock);
	return (Datum) 0;
}
