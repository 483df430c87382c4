/*
 * upcast.c: show stored events in the newest form of their type.
 *
 * A reader begins an upcasting and passes each event through it.  An upcaster
 * leads from a version of a type to the next one; an event goes along the
 * chain until there is none.  Versions only rise, so every chain ends.
 *
 * A session keeps the definitions compiled until the relation cache reports a
 * change; programs belong to the reader.  Readers may be nested, and a change
 * may come while one is under way: definitions that are replaced live on to
 * the end of the transaction.
 *
 * The output plugin upcasts inside logical decoding, where definitions are as
 * they were when the event was inserted and no ordinary table can be read.
 * There an event goes along the chain as far as the upcasters call no function
 * of users' that is STABLE, since such a function may read tables.  One that is
 * marked IMMUTABLE and does so all the same is stopped by an error, and an
 * upcaster that is too long to stand in its row cannot be read at all and is
 * passed by.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "definition.h"
#include "point.h"
#include "stream.h"
#include "upcast.h"

/* Columns of es_upcaster; the table's definition rules. */
enum
{
	UPCASTER_TYPE = 1, UPCASTER_VERSION, UPCASTER_EXPRESSION, UPCASTER_NEW_TYPE,
	UPCASTER_OWNER, UPCASTER_PATH
};

/* Stored events that a definition is tried on, and how far to look for them. */
#define ES_SAMPLES 10
#define ES_SAMPLE_SEARCH 10000

/* The way from one version of a type to the next. */
typedef struct Upcaster
{
	int			index;			/* in the list of all */
	text	   *event_type;
	int32		version;
	char	   *sql;
	text	   *new_type;		/* NULL: the same */
	EsDefiner	definer;
	EsExpression *expression;	/* NULL: not compiled yet */
	bool		decodable;		/* it may run in logical decoding */
} Upcaster;

/* All that are defined. */
typedef struct Upcasters
{
	MemoryContext context;		/* of all this; NULL: never read */
	uint64		generation;		/* of the rows it was made from */
	uint64		digest;			/* of what they do; 0 without any */
	List	   *all;
	uint32		mask;			/* of the table below */
	Upcaster  **by_hash;		/* by type and version, open addressing */
	EsScope    *scope;			/* event */
} Upcasters;

struct EsUpcast
{
	Upcasters	upcasters;		/* as they were when the reader began */
	MemoryContext context;		/* of all this */
	ExprState **programs;		/* by index of the upcaster; NULL: not yet */
	ExprContext *econtext;		/* its per-tuple memory is the event's */
	ParamListInfo params;
	TupleTableSlot *slot;		/* the event as it is shown */
	bool		decodes;		/* under a historic snapshot */
	bool		keep_rights;	/* stay in the definer's name between events */
	const EsDefiner *definer;	/* in whose name we are; NULL: the caller's */
	EsRights	rights;			/* what to go back to */
};

static Upcasters current;
static uint64 generation = 1;
static Oid	definitions = InvalidOid;	/* es_upcaster, once it was read */
static Oid	events = InvalidOid;	/* es_event, likewise */

PG_FUNCTION_INFO_V1(es_upcast);
PG_FUNCTION_INFO_V1(es_drop_upcaster);

/* ----- definitions ----- */

static void
on_relation_change(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == definitions || relid == events)
		generation++;
}

static void
on_row_change(Datum arg, int cacheid, uint32 hash)
{
	if (current.all != NIL)
		generation++;
}

void
EsUpcastInit(void)
{
	EsOnRelationChange(on_relation_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, on_row_change, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, on_row_change, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, on_row_change, (Datum) 0);
}

static text *
row_text(Relation rel, HeapTuple tuple, AttrNumber column)
{
	char	   *string = EsRowText(rel, tuple, column);

	return string == NULL ? NULL : cstring_to_text(string);
}

static void
add_to_digest(uint64 *digest, const char *string)
{
	*digest = hash_bytes_extended((const unsigned char *) string, strlen(string),
								  *digest + 1);
}

/* Is the text kept in the TOAST table, which decoding cannot look back into? */
static bool
is_out_of_reach(Relation rel, HeapTuple tuple)
{
	bool		isnull;
	Datum		expression = heap_getattr(tuple, UPCASTER_EXPRESSION,
										  RelationGetDescr(rel), &isnull);

	return HistoricSnapshotActive() &&
		VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(expression));
}

static bool
visit_upcaster(Relation rel, HeapTuple tuple, void *arg)
{
	Upcasters  *into = arg;
	Upcaster   *upcaster;
	bool		isnull;

	if (is_out_of_reach(rel, tuple))
		return true;
	upcaster = palloc0(sizeof(Upcaster));
	upcaster->index = list_length(into->all);
	upcaster->event_type = row_text(rel, tuple, UPCASTER_TYPE);
	upcaster->version = DatumGetInt32(heap_getattr(tuple, UPCASTER_VERSION,
												   RelationGetDescr(rel), &isnull));
	upcaster->sql = EsRowText(rel, tuple, UPCASTER_EXPRESSION);
	upcaster->new_type = row_text(rel, tuple, UPCASTER_NEW_TYPE);
	upcaster->definer = EsDefinerOfRow(rel, tuple, UPCASTER_OWNER, UPCASTER_PATH);
	add_to_digest(&into->digest, text_to_cstring(upcaster->event_type));
	add_to_digest(&into->digest, psprintf("%d", upcaster->version));
	add_to_digest(&into->digest, upcaster->sql);
	add_to_digest(&into->digest, upcaster->definer.search_path);
	add_to_digest(&into->digest, upcaster->new_type == NULL ? "" :
				  text_to_cstring(upcaster->new_type));
	into->all = lappend(into->all, upcaster);
	return true;
}

static inline uint32
upcaster_hash(const text *event_type, int32 version)
{
	return EsEventTypeHash(VARDATA_ANY(event_type),
						   VARSIZE_ANY_EXHDR(event_type)) + (uint32) version;
}

static bool
same_type(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

static Upcaster *
find_upcaster(const Upcasters *in, const text *event_type, int32 version)
{
	uint32		slot = upcaster_hash(event_type, version) & in->mask;
	Upcaster   *upcaster;

	while ((upcaster = in->by_hash[slot]) != NULL &&
		   (upcaster->version != version || !same_type(upcaster->event_type, event_type)))
		slot = (slot + 1) & in->mask;
	return upcaster;
}

static void
fill_hash(Upcasters *into)
{
	ListCell   *cell;

	into->mask = 7;
	while ((int) into->mask < 2 * list_length(into->all))
		into->mask = into->mask * 2 + 1;
	into->by_hash = palloc0((into->mask + 1) * sizeof(Upcaster *));
	foreach(cell, into->all)
	{
		Upcaster   *upcaster = lfirst(cell);
		uint32		slot = upcaster_hash(upcaster->event_type, upcaster->version) & into->mask;

		while (into->by_hash[slot] != NULL)
			slot = (slot + 1) & into->mask;
		into->by_hash[slot] = upcaster;
	}
}

/* The planned trees live outside the definitions' context. */
static void
release_expressions(void *arg)
{
	ListCell   *cell;

	foreach(cell, *(List **) arg)
		if (((Upcaster *) lfirst(cell))->expression != NULL)
			EsExpressionFree(((Upcaster *) lfirst(cell))->expression);
}

/* Read the definitions anew; those before stay to the transaction's end. */
static void
read_upcasters(void)
{
	Upcasters	new = {.generation = generation};
	MemoryContextCallback *callback;
	MemoryContext saved;
	List	  **all;

	definitions = EsStoreGet()->upcaster;
	events = EsStoreGet()->event;
	new.context = AllocSetContextCreate(CurrentMemoryContext,
										"eventstore upcasters",
										ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(new.context);
	EsCatalogScan(definitions, UPCASTER_TYPE, NULL, visit_upcaster, &new);
	fill_hash(&new);
	new.scope = EsEventScope(new.context);
	all = palloc(sizeof(List *));
	*all = new.all;
	callback = palloc(sizeof(MemoryContextCallback));
	callback->func = release_expressions;
	callback->arg = all;
	MemoryContextRegisterResetCallback(new.context, callback);
	MemoryContextSwitchTo(saved);
	if (current.context != NULL)
		MemoryContextSetParent(current.context, TopTransactionContext);
	MemoryContextSetParent(new.context, CacheMemoryContext);
	current = new;
}

static bool
is_stale(void)
{
	ListCell   *cell;

	if (current.context == NULL || current.generation != generation)
		return true;
	foreach(cell, current.all)
	{
		Upcaster   *upcaster = lfirst(cell);

		if (upcaster->expression != NULL && !upcaster->expression->cached->is_valid)
			return true;
	}
	return false;
}

/* Have the definitions that are committed by now; false if there are none. */
static bool
have_upcasters(void)
{
	AcceptInvalidationMessages();
	if (unlikely(is_stale()))
		read_upcasters();
	return current.all != NIL;
}

/* What the definitions do, as far as their texts say; 0 without any. */
uint64
EsUpcastDigest(void)
{
	return have_upcasters() ? current.digest : 0;
}

/* ----- upcast ----- */

/*
 * Begin to upcast events for a reader, in the current memory context; NULL
 * if there is nothing to do.  keep_rights: the reader runs no code of users
 * between events, so the definer's rights may stay in force until the end.
 */
EsUpcast *
EsUpcastBegin(TupleDesc event, bool keep_rights)
{
	EsUpcast   *upcast;
	MemoryContext saved;

	if (!have_upcasters())
		return NULL;
	upcast = palloc0(sizeof(EsUpcast));
	upcast->upcasters = current;
	upcast->decodes = HistoricSnapshotActive();
	upcast->keep_rights = keep_rights;
	upcast->context = AllocSetContextCreate(CurrentMemoryContext,
											"eventstore upcast",
											ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(upcast->context);
	upcast->programs = palloc0(list_length(current.all) * sizeof(ExprState *));
	upcast->econtext = CreateStandaloneExprContext();
	upcast->params = EsParamsCreate(current.scope);
	upcast->econtext->ecxt_param_list_info = upcast->params;
	upcast->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(event), &TTSOpsVirtual);
	MemoryContextSwitchTo(saved);
	return upcast;
}

static void
leave_rights(EsUpcast *upcast)
{
	if (upcast->definer != NULL)
		EsRightsLeave(&upcast->rights);
	upcast->definer = NULL;
}

static void
enter_rights(EsUpcast *upcast, const EsDefiner *definer)
{
	if (upcast->definer != NULL && upcast->definer->role == definer->role &&
		strcmp(upcast->definer->search_path, definer->search_path) == 0)
		return;
	leave_rights(upcast);
	EsRightsEnter(definer, &upcast->rights);
	upcast->definer = definer;
}

static bool
may_read_tables(Oid function, void *arg)
{
	return function >= FirstNormalObjectId &&
		func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

/* Does the planned expression call a function that may read tables? */
static bool
calls_readers(Node *node, void *arg)
{
	return node != NULL &&
		(check_functions_in_node(node, may_read_tables, arg) ||
		 expression_tree_walker(node, calls_readers, arg));
}

static void
compile_upcaster(const Upcasters *of, Upcaster *upcaster)
{
	if (upcaster->expression != NULL)
		return;
	upcaster->expression =
		EsDefinitionCompile(of->context, upcaster->sql, of->scope, JSONBOID,
							&upcaster->definer,
							psprintf("the upcaster of event type \"%s\" from version %d",
									 text_to_cstring(upcaster->event_type),
									 upcaster->version));
	upcaster->decodable = !calls_readers(upcaster->expression->cached->expr, NULL);
}

/* What the upcaster runs as; its definer's rights are in force. */
static ExprState *
ready_program(EsUpcast *upcast, Upcaster *upcaster)
{
	ExprState **program = &upcast->programs[upcaster->index];
	MemoryContext saved;

	if (likely(*program != NULL))
		return *program;
	saved = MemoryContextSwitchTo(upcast->context);
	*program = ExecInitExprWithParams((Expr *) upcaster->expression->cached->expr,
									  upcast->params);
	MemoryContextSwitchTo(saved);
	return *program;
}

/* ----- in logical decoding ----- */

static ExecutorStart_hook_type next_executor_start = NULL;
static bool refusing = false;	/* refuse_tables was put in front of it */
static bool decoding = false;	/* an upcaster is running there */

/*
 * Nothing but catalogs can be read there, and this server version might not
 * refuse, but answer with rows of the past.
 */
static void
refuse_tables(QueryDesc *query, int eflags)
{
	if (decoding && query->plannedstmt->relationOids != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot read tables in logical decoding"),
				 errhint("Mark the functions that the upcaster calls as STABLE, if they read tables, and decode with the option \"upcast\" off as far as the events of before.")));
	if (next_executor_start != NULL)
		next_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

static void
add_upcaster_context(void *arg)
{
	const Upcaster *upcaster = arg;

	errcontext("upcaster of event type \"%s\" from version %d, in logical decoding",
			   text_to_cstring(upcaster->event_type), upcaster->version);
}

/*
 * Evaluate the program where functions find a snapshot to plan with, and no
 * table to read.
 */
static Datum
evaluate_decoding(Upcaster *upcaster, ExprState *program, ExprContext *econtext,
				  bool *isnull)
{
	ErrorContextCallback callback;
	Datum		value = (Datum) 0;

	if (!refusing)
	{
		next_executor_start = ExecutorStart_hook;
		ExecutorStart_hook = refuse_tables;
		refusing = true;
	}
	callback.callback = add_upcaster_context;
	callback.arg = upcaster;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	PushActiveSnapshot(GetCatalogSnapshot(InvalidOid));
	decoding = true;
	PG_TRY();
	{
		value = ExecEvalExprSwitchContext(program, econtext, isnull);
	}
	PG_FINALLY();
	{
		decoding = false;
	}
	PG_END_TRY();
	PopActiveSnapshot();
	error_context_stack = callback.previous;
	return value;
}

/* May the upcaster run here?  It is compiled then. */
static bool
may_run(EsUpcast *upcast, Upcaster *upcaster)
{
	if (upcaster->expression == NULL)
	{
		leave_rights(upcast);
		compile_upcaster(&upcast->upcasters, upcaster);
	}
	return ES_BUG == 104 || !upcast->decodes || upcaster->decodable;
}

/* ----- upcast, continued ----- */

/* Take the event in our slot one version further. */
static void
upcast_once(EsUpcast *upcast, Upcaster *upcaster)
{
	Datum	   *values = upcast->slot->tts_values;
	ExprState  *program;
	Datum		data;
	bool		isnull;

	enter_rights(upcast, &upcaster->definer);
	program = ready_program(upcast, upcaster);
	EsParamsSetSlot(upcast->params, &upcast->upcasters.scope->variables[0],
					upcaster->expression->text.used, upcast->slot);
	if (unlikely(upcast->decodes))
		data = evaluate_decoding(upcaster, program, upcast->econtext, &isnull);
	else
		data = ExecEvalExprSwitchContext(program, upcast->econtext, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the upcaster of event type \"%s\" from version %d gives NULL",
						text_to_cstring(upcaster->event_type), upcaster->version),
				 errdetail("The event is at position " INT64_FORMAT ".",
						   DatumGetInt64(values[ES_EVENT_POSITION - 1]))));
	values[ES_EVENT_DATA - 1] = data;
	values[ES_EVENT_TYPE_VERSION - 1] = Int32GetDatum(upcaster->version + 1);
	if (upcaster->new_type != NULL)
		values[ES_EVENT_EVENT_TYPE - 1] = PointerGetDatum(upcaster->new_type);
}

/* The upcaster to run on the event, compiled; NULL if there is none. */
static Upcaster *
upcaster_of(EsUpcast *upcast, TupleTableSlot *slot)
{
	Upcaster   *upcaster;

	slot_getsomeattrs(slot, ES_EVENT_EVENT_TYPE);
	upcaster = find_upcaster(&upcast->upcasters,
							 DatumGetTextPP(slot->tts_values[ES_EVENT_EVENT_TYPE - 1]),
							 DatumGetInt32(slot->tts_values[ES_EVENT_TYPE_VERSION - 1]));
	return upcaster == NULL || !may_run(upcast, upcaster) ? NULL : upcaster;
}

/*
 * The event as it is to be shown: the slot that was given where there is
 * nothing to change, else one of our own, good until the next call.
 */
TupleTableSlot *
EsUpcastSlot(EsUpcast *upcast, TupleTableSlot *slot)
{
	Upcaster   *upcaster;

	if (upcast == NULL || (upcaster = upcaster_of(upcast, slot)) == NULL)
		return slot;
	ResetExprContext(upcast->econtext);
	slot_getallattrs(slot);
	ExecClearTuple(upcast->slot);
	memcpy(upcast->slot->tts_values, slot->tts_values,
		   slot->tts_tupleDescriptor->natts * sizeof(Datum));
	memcpy(upcast->slot->tts_isnull, slot->tts_isnull,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	ExecStoreVirtualTuple(upcast->slot);
	do
		upcast_once(upcast, upcaster);
	while ((upcaster = upcaster_of(upcast, upcast->slot)) != NULL);
	if (!upcast->keep_rights)
		leave_rights(upcast);
	return upcast->slot;
}

/* The type that the event is to be shown under; runs no upcaster. */
const text *
EsUpcastType(const EsUpcast *upcast, TupleTableSlot *slot)
{
	const text *type;
	int32		version;
	Upcaster   *upcaster;

	slot_getsomeattrs(slot, ES_EVENT_EVENT_TYPE);
	type = DatumGetTextPP(slot->tts_values[ES_EVENT_EVENT_TYPE - 1]);
	version = DatumGetInt32(slot->tts_values[ES_EVENT_TYPE_VERSION - 1]);
	while (upcast != NULL &&
		   (upcaster = find_upcaster(&upcast->upcasters, type, version)) != NULL)
	{
		version = upcaster->version + 1;
		if (upcaster->new_type != NULL)
			type = upcaster->new_type;
	}
	return type;
}

void
EsUpcastEnd(EsUpcast *upcast)
{
	if (upcast == NULL)
		return;
	leave_rights(upcast);
	FreeExprContext(upcast->econtext, true);
	ExecDropSingleTupleTableSlot(upcast->slot);
	MemoryContextDelete(upcast->context);
	pfree(upcast);
}

/* ----- SQL ----- */

/*
 * Try an upcaster on the newest stored events of its type and version, as far
 * as they are among the last of the log.
 */
static void
try_on_samples(text *event_type, int32 version)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	Relation	index = index_open(store->position_key, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = EsIndexBeginScan(event, index, snapshot, 0);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(event), false);
	int			tried = 0;
	bool		isnull;

	index_rescan(scan, NULL, 0, NULL, 0);
	for (int i = 0; i < ES_SAMPLE_SEARCH && tried < ES_SAMPLES &&
		 index_getnext_slot(scan, BackwardScanDirection, slot); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt32(slot_getattr(slot, ES_EVENT_TYPE_VERSION, &isnull)) != version ||
			!same_type(DatumGetTextPP(slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull)), event_type))
			continue;
		(void) EsUpcastSlot(upcast, slot);
		tried++;
	}
	EsUpcastEnd(upcast);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(event, AccessShareLock);
}

/*
 * es_upcast(event_type text, from_version integer, expression text,
 *			 new_type text) → void
 */
Datum
es_upcast(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, INT4OID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID};
	Datum		values[6];
	char		nulls[] = "      ";

	EsRequireArgument(fcinfo, 0, "event_type");
	EsRequireArgument(fcinfo, 1, "from_version");
	EsRequireArgument(fcinfo, 2, "expression");
	EsCheckEventType(PG_GETARG_TEXT_PP(0));
	if (PG_GETARG_INT32(1) < 1 || PG_GETARG_INT32(1) == PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid type version %d", PG_GETARG_INT32(1))));
	if (!PG_ARGISNULL(3))
		EsCheckEventType(PG_GETARG_TEXT_PP(3));
	for (int i = 0; i < 4; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[4] = ObjectIdGetDatum(GetUserId());
	values[5] = CStringGetTextDatum(EsCurrentSearchPath());
	EsCatalogWrite("LOCK TABLE ONLY %s.es_upcaster IN SHARE ROW EXCLUSIVE MODE",
				   0, NULL, NULL, NULL);
	if (EsCatalogWrite("UPDATE %s.es_upcaster SET expression = $3, new_type = $4,"
					   " owner = $5, search_path = $6"
					   " WHERE event_type OPERATOR(pg_catalog.=) $1"
					   " AND from_version OPERATOR(pg_catalog.=) $2",
					   6, types, values, nulls) == 0)
		EsCatalogWrite("INSERT INTO %s.es_upcaster (event_type, from_version,"
					   " expression, new_type, owner, search_path)"
					   " VALUES ($1, $2, $3, $4, $5, $6)",
					   6, types, values, nulls);
	if (have_upcasters())
		compile_upcaster(&current, find_upcaster(&current, PG_GETARG_TEXT_PP(0),
												 PG_GETARG_INT32(1)));
	try_on_samples(PG_GETARG_TEXT_PP(0), PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

/*
 * es_drop_upcaster(event_type text, from_version integer, if_exists boolean)
 *		→ void
 */
Datum
es_drop_upcaster(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, INT4OID};
	Datum		values[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	bool		if_exists = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	char	   *what;

	EsRequireArgument(fcinfo, 0, "event_type");
	EsRequireArgument(fcinfo, 1, "from_version");
	what = psprintf("upcaster of event type \"%s\" from version %d",
					text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT32(1));
	if (EsCatalogWrite("DELETE FROM %s.es_upcaster"
					   " WHERE event_type OPERATOR(pg_catalog.=) $1"
					   " AND from_version OPERATOR(pg_catalog.=) $2",
					   2, types, values, NULL) > 0)
		PG_RETURN_VOID();
	ereport(if_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 if_exists ? errmsg("%s does not exist, skipping", what) :
			 errmsg("%s does not exist", what)));
	PG_RETURN_VOID();
}
