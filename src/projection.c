/*
 * projection.c: definitions of projections, and the functions that change them.
 *
 * Definitions are read by direct scans under the newest snapshot, whatever
 * the isolation level: a projection that goes live or rests does so while the
 * gate keeps all appends out, and the first append behind it must see that,
 * even if its transaction began long before.
 *
 * Whose rights a handler runs with is decided here and nowhere else: the
 * owner is the session's current role when the projection is made, and only
 * who can act as the owner may change anything about it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "apply.h"
#include "log.h"
#include "projection.h"
#include "query.h"
#include "wake.h"

/* Columns of es_projection, as far as they are read here. */
enum
{
	P_NAME = 1, P_MODE, P_STATUS, P_ON_ERROR, P_OWNER, P_SEARCH_PATH,
	P_CATEGORY, P_TABLES, P_POSITION
};

/* Columns of es_projection_handler. */
enum
{
	H_PROJECTION = 1, H_ORDINAL, H_EVENT_TYPE, H_HANDLER
};

static const char *const status_names[] = {
	"live", "catching up", "paused", "stopped"
};

static const char *const on_error_names[] = {
	"stop", "skip", "park_stream"
};

static const char *const mode_names[] = {
	"async", "inline"
};

PG_FUNCTION_INFO_V1(es_create_projection);
PG_FUNCTION_INFO_V1(es_drop_projection);
PG_FUNCTION_INFO_V1(es_on);
PG_FUNCTION_INFO_V1(es_on_batch);
PG_FUNCTION_INFO_V1(es_drop_handler);
PG_FUNCTION_INFO_V1(es_pause_projection);
PG_FUNCTION_INFO_V1(es_resume_projection);
PG_FUNCTION_INFO_V1(es_projection_guard);

/* ----- reading definitions ----- */

/* The place of a word in a list; -1 if it is not there. */
static int
find_word(const char *word, const char *const *words, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(word, words[i]) == 0)
			return i;
	return -1;
}

static char *
slot_text(TupleTableSlot *slot, AttrNumber attno)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attno, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static void
read_tables(EsProjection *projection, Datum array)
{
	Datum	   *elements;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &projection->ntables);
	projection->tables = palloc(projection->ntables * sizeof(char *));
	for (int i = 0; i < projection->ntables; i++)
		projection->tables[i] = TextDatumGetCString(elements[i]);
}

/* Scopes of the handlers: event for single events, nothing for a batch. */
static void
make_scopes(EsProjection *projection)
{
	Oid			event = EsStoreGet()->event;

	projection->scope = EsScopeCreate(projection->context);
	EsScopeAdd(projection->scope, "event", get_rel_type_id(event), -1);
	projection->no_scope = EsScopeCreate(projection->context);
}

/* A role's name; of one that is dropped, a name that no role has. */
static char *
role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name != NULL ? name : psprintf("unknown (OID=%u)", role);
}

/* A projection from its row, without its handlers. */
static EsProjection *
read_projection(MemoryContext parent, TupleTableSlot *slot)
{
	MemoryContext context = AllocSetContextCreate(parent, "eventstore projection",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);
	EsProjection *projection = palloc0(sizeof(EsProjection));
	bool		isnull;

	projection->context = context;
	projection->name = slot_text(slot, P_NAME);
	projection->is_inline = strcmp(slot_text(slot, P_MODE), "inline") == 0;
	projection->status = find_word(slot_text(slot, P_STATUS), status_names,
								   lengthof(status_names));
	projection->on_error = find_word(slot_text(slot, P_ON_ERROR), on_error_names,
									 lengthof(on_error_names));
	projection->owner = role_name(DatumGetObjectId(slot_getattr(slot, P_OWNER, &isnull)));
	projection->search_path = slot_text(slot, P_SEARCH_PATH);
	projection->category = slot_text(slot, P_CATEGORY);
	read_tables(projection, slot_getattr(slot, P_TABLES, &isnull));
	projection->position = DatumGetInt64(slot_getattr(slot, P_POSITION, &isnull));
	MemoryContextSwitchTo(saved);
	return projection;
}

static void
add_handler(EsProjection *projection, TupleTableSlot *slot)
{
	MemoryContext saved = MemoryContextSwitchTo(projection->context);
	EsHandler  *handler;
	bool		isnull;

	if (projection->nhandlers == 0)
		projection->handlers = palloc(sizeof(EsHandler));
	else
		projection->handlers = repalloc(projection->handlers,
										(projection->nhandlers + 1) * sizeof(EsHandler));
	handler = &projection->handlers[projection->nhandlers++];
	memset(handler, 0, sizeof(EsHandler));
	handler->ordinal = DatumGetInt32(slot_getattr(slot, H_ORDINAL, &isnull));
	handler->event_type = slot_text(slot, H_EVENT_TYPE);
	handler->sql = slot_text(slot, H_HANDLER);
	if (handler->event_type == NULL)
		projection->has_batch = true;
	else
	{
		projection->has_single = true;
		handler->event_type_len = strlen(handler->event_type);
	}
	MemoryContextSwitchTo(saved);
}

static int
compare_handlers(const void *a, const void *b)
{
	return ((const EsHandler *) a)->ordinal - ((const EsHandler *) b)->ordinal;
}

static int
compare_projections(const void *a, const void *b)
{
	return strcmp((*(EsProjection *const *) a)->name,
				  (*(EsProjection *const *) b)->name);
}

/* Give the n projections, sorted by name, their handlers. */
static void
load_handlers(EsProjection **projections, int n, Oid relid, Snapshot snapshot)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		EsProjection key = {.name = slot_text(slot, H_PROJECTION)};
		EsProjection *wanted = &key;
		EsProjection **found = n == 0 ? NULL :
			bsearch(&wanted, projections, n, sizeof(EsProjection *),
					compare_projections);

		if (found != NULL)
			add_handler(*found, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	for (int i = 0; i < n; i++)
		qsort(projections[i]->handlers, projections[i]->nhandlers,
			  sizeof(EsHandler), compare_handlers);
}

/*
 * The definitions of all projections, or of the one with this name, sorted
 * by name; answers how many.  Each lives in a child context of parent.
 */
static int
load(MemoryContext parent, const char *name, EsProjection ***projections)
{
	const EsStore *store = EsStoreGet();
	Oid			handlers = store->projection_handler;
	Relation	rel = table_open(store->projection, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			n = 0;
	int			max = 16;

	*projections = MemoryContextAlloc(parent, max * sizeof(EsProjection *));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		if (name != NULL && strcmp(slot_text(slot, P_NAME), name) != 0)
			continue;
		if (n == max)
			*projections = repalloc(*projections, (max *= 2) * sizeof(EsProjection *));
		(*projections)[n] = read_projection(parent, slot);
		make_scopes((*projections)[n++]);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	qsort(*projections, n, sizeof(EsProjection *), compare_projections);
	load_handlers(*projections, n, handlers, snapshot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return n;
}

int
EsProjectionLoadAll(MemoryContext parent, EsProjection ***projections)
{
	return load(parent, NULL, projections);
}

/* One definition; 42704 where there is none of this name. */
EsProjection *
EsProjectionLoad(MemoryContext parent, const char *name)
{
	EsProjection **projections;

	if (load(parent, name, &projections) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not exist", name)));
	return projections[0];
}

/* Free a definition and the statements compiled for it. */
void
EsProjectionFree(EsProjection *projection)
{
	for (int i = 0; i < projection->nhandlers; i++)
		if (projection->handlers[i].statement != NULL)
			EsStatementFree(projection->handlers[i].statement);
	MemoryContextDelete(projection->context);
}

/* Make every session read the definitions anew, once this one commits. */
void
EsProjectionChanged(void)
{
	CacheInvalidateRelcacheByRelid(EsStoreGet()->projection);
	EsWakeAtCommit();
}

/* 42501 unless the current role can act as the projection's owner. */
void
EsProjectionCheckOwner(const char *name, const char *owner)
{
	Oid			role = get_role_oid(owner, true);

	if (OidIsValid(role) ? !has_privs_of_role(GetUserId(), role) : !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of projection \"%s\"", name),
				 errdetail("It belongs to role \"%s\".", owner)));
}

/* ----- changing definitions ----- */

static char *
text_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* One of the words; 22023 otherwise. */
static int
word_argument(FunctionCallInfo fcinfo, int n, const char *name,
			  const char *const *words, int nwords)
{
	char	   *word = text_argument(fcinfo, n, name);
	int			found = find_word(word, words, nwords);
	StringInfoData list;

	if (found >= 0)
		return found;
	initStringInfo(&list);
	for (int i = 0; i < nwords; i++)
		appendStringInfo(&list, "%s%s", i == 0 ? "" : i == nwords - 1 ? " or " : ", ",
						 words[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s \"%s\"", name, word),
			 errhint("Use %s.", list.data)));
	return -1;
}

/* The qualified name of a read table; 42809 for anything but a table. */
static Datum
table_name(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	if (kind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", get_rel_name(relid))));
	return CStringGetTextDatum(quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
														  get_rel_name(relid)));
}

/* regclass[] as text[] of qualified names. */
static Datum
tables_argument(FunctionCallInfo fcinfo, int n)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(n))
		return PointerGetDatum(construct_empty_array(TEXTOID));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), REGCLASSOID, sizeof(Oid), true,
					  TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of \"%s\" must not be null", i + 1, "tables")));
		elements[i] = table_name(DatumGetObjectId(elements[i]));
	}
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* Are there events, as the newest snapshot sees it? */
static bool
has_events(const EsStore *store)
{
	Relation	event = table_open(store->event, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	EsLogReader *reader = EsLogReaderBegin(event, store, snapshot, 0);
	bool		found = EsLogReaderNext(reader) != NULL;

	EsLogReaderEnd(reader);
	UnregisterSnapshot(snapshot);
	table_close(event, AccessShareLock);
	return found || EsSettledNow(store, NULL) < EsLastDrawn(store, NULL);
}

/*
 * The status that a new projection begins with.  An inline one is live at
 * once if no event precedes it; then no append is let in before this commits.
 */
static EsProjectionStatus
first_status(const EsStore *store, bool is_inline)
{
	if (!is_inline)
		return ES_PROJECTION_LIVE;
	if (has_events(store) || !EsGateTryClose(store, ES_GATE_PATIENCE) ||
		has_events(store))
		return ES_PROJECTION_CATCHING_UP;
	return ES_PROJECTION_LIVE;
}

static void
check_may_read_events(const EsStore *store)
{
	Relation	event = table_open(store->event, AccessShareLock);

	EsCheckPrivilege(event, ACL_SELECT);
	table_close(event, AccessShareLock);
}

static void
check_projection_name(const text *name)
{
	if (!EsNameIsValid(name, ES_MAX_EVENT_TYPE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid projection name"),
				 errdetail("A name has 1 to %d bytes and no control characters.",
						   ES_MAX_EVENT_TYPE)));
}

/*
 * es_create_projection(name text, mode text, tables regclass[],
 *						category text, on_error text)
 */
Datum
es_create_projection(PG_FUNCTION_ARGS)
{
	const EsStore *store = EsStoreGet();
	char	   *name = text_argument(fcinfo, 0, "name");
	int			mode = word_argument(fcinfo, 1, "mode", mode_names,
									 lengthof(mode_names));
	int			on_error = word_argument(fcinfo, 4, "on_error", on_error_names,
										 lengthof(on_error_names));
	EsQuery		query = {0};
	EsProjectionStatus status;

	EsRequireReadWrite("es_create_projection()");
	check_projection_name(PG_GETARG_TEXT_PP(0));
	check_may_read_events(store);
	status = first_status(store, mode == 1);

	SPI_connect();
	EsQueryAddText(&query, name);
	EsQueryAddText(&query, mode_names[mode]);
	EsQueryAddText(&query, status_names[status]);
	EsQueryAddText(&query, on_error_names[on_error]);
	EsQueryAdd(&query, REGROLEOID, ObjectIdGetDatum(GetUserId()), false);
	EsQueryAddText(&query, EsCurrentSearchPath());
	EsQueryAddText(&query, PG_ARGISNULL(3) ? NULL : text_argument(fcinfo, 3, "category"));
	EsQueryAdd(&query, TEXTARRAYOID, tables_argument(fcinfo, 2), false);
	EsQueryAddInt64(&query, status == ES_PROJECTION_LIVE && mode == 1 ?
					EsLastDrawn(store, NULL) : 0);
	if (EsQueryRun("INSERT INTO @es_projection (name, mode, status, on_error, owner,"
				   " search_path, category, tables, position)"
				   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
				   " ON CONFLICT DO NOTHING", &query) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("projection \"%s\" already exists", name)));
	SPI_finish();
	EsProjectionChanged();
	if (status == ES_PROJECTION_CATCHING_UP)
		ereport(NOTICE,
				(errmsg("projection \"%s\" must catch up with the store before it goes live", name),
				 errhint("CALL es_run_projections(), or start a worker with es_start_worker().")));
	PG_RETURN_VOID();
}

/*
 * Read a definition, and keep changes of it and runners away until the
 * transaction ends.  42704 where there is none.  Call inside SPI.
 */
EsProjection *
EsProjectionLock(const char *name)
{
	EsQuery		query = {0};

	(void) EsProjectionLoad(CurrentMemoryContext, name);
	EsQueryAddText(&query, name);
	EsQueryRun("SELECT FROM @es_projection WHERE name = $1 FOR UPDATE", &query);
	return EsProjectionLoad(CurrentMemoryContext, name);
}

/* The same in order to change what runs; 42501 unless it is the caller's. */
static EsProjection *
open_for_change(const char *name)
{
	EsProjection *projection = EsProjectionLock(name);

	EsProjectionCheckOwner(name, projection->owner);
	return projection;
}

/*
 * es_drop_projection(name text)
 */
Datum
es_drop_projection(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	EsQuery		query = {0};

	EsRequireReadWrite("es_drop_projection()");
	SPI_connect();
	open_for_change(name);
	EsQueryAddText(&query, name);
	EsQueryRun("DELETE FROM @es_projection WHERE name = $1", &query);
	SPI_finish();
	EsProjectionChanged();
	PG_RETURN_VOID();
}

/* Tell the user where a handler comes too late for some events. */
static void
report_events_passed(const EsProjection *projection)
{
	bool		live = projection->is_inline &&
		projection->status == ES_PROJECTION_LIVE;
	int64		passed = live ? EsLastDrawn(EsStoreGet(), NULL) : projection->position;

	if (passed > 0)
		ereport(NOTICE,
				(errmsg("the handler sees only events behind position " INT64_FORMAT, passed),
				 errhint("CALL es_rebuild_projection('%s') to let it see all.",
						 projection->name)));
}

/* Check and add a handler; event_type NULL: once a batch. */
static void
add_to_projection(const char *name, const char *event_type, const char *sql)
{
	EsQuery		query = {0};
	EsProjection *projection;

	SPI_connect();
	projection = open_for_change(name);
	EsHandlerCheck(projection, event_type, sql);
	EsQueryAddText(&query, name);
	EsQueryAddText(&query, event_type);
	EsQueryAddText(&query, sql);
	EsQueryRun("INSERT INTO @es_projection_handler (projection, ordinal, event_type, handler)"
			   " SELECT $1, coalesce(max(ordinal), 0) + 1, $2, $3"
			   " FROM @es_projection_handler WHERE projection = $1", &query);
	report_events_passed(projection);
	SPI_finish();
	EsProjectionChanged();
}

/*
 * es_on(projection text, event_type text, handler text)
 */
Datum
es_on(PG_FUNCTION_ARGS)
{
	EsRequireReadWrite("es_on()");
	EsCheckEventType(PG_GETARG_TEXT_PP(1));
	add_to_projection(text_to_cstring(PG_GETARG_TEXT_PP(0)),
					  text_to_cstring(PG_GETARG_TEXT_PP(1)),
					  text_to_cstring(PG_GETARG_TEXT_PP(2)));
	PG_RETURN_VOID();
}

/*
 * es_on_batch(projection text, handler text)
 */
Datum
es_on_batch(PG_FUNCTION_ARGS)
{
	EsRequireReadWrite("es_on_batch()");
	add_to_projection(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL,
					  text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/*
 * es_drop_handler(projection text, event_type text, if_exists boolean)
 *
 * The handlers of one event type, or without it those that run once a batch.
 */
Datum
es_drop_handler(PG_FUNCTION_ARGS)
{
	char	   *name = text_argument(fcinfo, 0, "projection");
	char	   *event_type = PG_ARGISNULL(1) ? NULL : text_argument(fcinfo, 1, "event_type");
	EsQuery		query = {0};

	EsRequireReadWrite("es_drop_handler()");
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "if_exists")));
	SPI_connect();
	open_for_change(name);
	EsQueryAddText(&query, name);
	EsQueryAddText(&query, event_type);
	if (EsQueryRun("DELETE FROM @es_projection_handler"
				   " WHERE projection = $1 AND event_type IS NOT DISTINCT FROM $2",
				   &query) == 0)
		ereport(PG_GETARG_BOOL(2) ? NOTICE : ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 event_type == NULL ?
				 errmsg("projection \"%s\" has no handler for batches", name) :
				 errmsg("projection \"%s\" has no handler for events of type \"%s\"",
						name, event_type)));
	SPI_finish();
	EsProjectionChanged();
	PG_RETURN_VOID();
}

/* Set the status, with the checkpoint where position >= 0. */
static void
set_status(const char *name, EsProjectionStatus status, int64 position)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, name);
	EsQueryAddText(&query, status_names[status]);
	EsQueryAddInt64(&query, position);
	EsQueryRun("UPDATE @es_projection SET status = $2,"
			   " position = CASE WHEN $3 < 0 THEN position ELSE $3 END,"
			   " last_error = NULL, error_position = NULL, error_handler = NULL"
			   " WHERE name = $1", &query);
	EsProjectionChanged();
}

/*
 * es_pause_projection(name text)
 *
 * An inline projection rests from the moment at which no append is under
 * way, so that its checkpoint is exact.
 */
Datum
es_pause_projection(PG_FUNCTION_ARGS)
{
	const EsStore *store = EsStoreGet();
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	EsProjection *projection;
	int64		position = -1;

	EsRequireReadWrite("es_pause_projection()");
	SPI_connect();
	projection = EsProjectionLock(name);
	if (projection->status == ES_PROJECTION_PAUSED)
	{
		SPI_finish();
		PG_RETURN_VOID();
	}
	if (projection->is_inline && projection->status == ES_PROJECTION_LIVE)
	{
		EsGateCloseGently(store);
		position = EsLastDrawn(store, NULL);
	}
	set_status(name, ES_PROJECTION_PAUSED, position);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_resume_projection(name text)
 */
Datum
es_resume_projection(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	EsProjection *projection;

	EsRequireReadWrite("es_resume_projection()");
	SPI_connect();
	projection = EsProjectionLock(name);
	if (projection->status == ES_PROJECTION_PAUSED ||
		projection->status == ES_PROJECTION_STOPPED)
		set_status(name, projection->is_inline ? ES_PROJECTION_CATCHING_UP :
				   ES_PROJECTION_LIVE, -1);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ----- rows written past the functions ----- */

/* 42501 unless the writer of a row of either table can act as its owner. */
static void
check_writer(Relation rel, HeapTuple row)
{
	bool		of_projection = RelationGetRelid(rel) == EsStoreGet()->projection;
	bool		isnull;
	char	   *name;
	Datum		value;

	value = heap_getattr(row, of_projection ? P_NAME : H_PROJECTION,
						 RelationGetDescr(rel), &isnull);
	if (isnull)
		return;					/* the column's constraint will tell */
	name = TextDatumGetCString(value);
	if (!of_projection)
	{
		EsProjectionCheckOwner(name, EsProjectionLoad(CurrentMemoryContext, name)->owner);
		return;
	}
	value = heap_getattr(row, P_OWNER, RelationGetDescr(rel), &isnull);
	if (!isnull)
		EsProjectionCheckOwner(name, role_name(DatumGetObjectId(value)));
}

/*
 * BEFORE INSERT OR UPDATE on es_projection and es_projection_handler: who
 * writes a definition must be able to act as the role it runs as.
 */
Datum
es_projection_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be fired before insert or update for each row")));
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple :
		trigger->tg_trigtuple;
	if (!superuser())
		check_writer(trigger->tg_relation, row);
	/* a moved checkpoint is no changed definition */
	if (!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != EsStoreGet()->projection)
		EsProjectionChanged();
	PG_RETURN_POINTER(row);
}
