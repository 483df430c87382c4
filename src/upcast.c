/*
 * upcast.c: show stored events in the newest form of their type.
 *
 * A reader begins an upcasting and passes each event through it.  An upcaster
 * leads from a version of a type to the next one; an event goes along the
 * chain until there is none.  Versions only rise, so every chain ends.
 *
 * versioned.c keeps the definitions; programs belong to the reader.  Readers
 * may be nested, and a change may come while one is under way: a reader goes
 * on with the definitions that it began with.
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
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "definition_digest.h"
#include "point.h"
#include "scan.h"
#include "stream.h"
#include "upcast.h"
#include "versioned.h"

/* Columns of es_upcaster behind type and version; the table's definition rules. */
enum
{
	UPCASTER_EXPRESSION = 3, UPCASTER_NEW_TYPE, UPCASTER_OWNER, UPCASTER_PATH
};

/* Stored events that a definition is tried on, and how far to look for them. */
#define ES_SAMPLES 10
#define ES_SAMPLE_SEARCH 10000

/* The way from one version of a type to the next. */
typedef struct Upcaster
{
	EsVersioned versioned;		/* must be first */
	text	   *new_type;		/* NULL: the same */
} Upcaster;

struct EsUpcast
{
	EsVersionedSet upcasters;	/* as they were when the reader began */
	MemoryContext context;		/* of all this */
	ExprState **programs;		/* by index of the upcaster; NULL: not yet */
	ExprContext *econtext;		/* its per-tuple memory is the event's */
	ParamListInfo params;
	TupleTableSlot *slot;		/* the event as it is shown */
	const Upcaster *running;	/* for an error's context */
	bool		decodes;		/* under a historic snapshot */
	bool		keep_rights;	/* stay in the definer's name between events */
	const EsDefiner *definer;	/* in whose name we are; NULL: the caller's */
	EsRights	rights;			/* what to go back to */
};

static void read_new_type(Relation rel, HeapTuple tuple, EsVersioned *into);

static const EsVersionedKind kind = {
	.name = "upcasters",
	.size = sizeof(Upcaster),
	.table = offsetof(EsStore, upcaster),
	.sql = UPCASTER_EXPRESSION,
	.owner = UPCASTER_OWNER,
	.search_path = UPCASTER_PATH,
	.read_rest = read_new_type
};
static EsVersionedCache cache = {.kind = &kind};

PG_FUNCTION_INFO_V1(es_upcast);
PG_FUNCTION_INFO_V1(es_drop_upcaster);

/* ----- definitions ----- */

void
EsUpcastInit(void)
{
	EsVersionedInit(&cache);
}

static void
read_new_type(Relation rel, HeapTuple tuple, EsVersioned *into)
{
	char	   *new_type = EsRowText(rel, tuple, UPCASTER_NEW_TYPE);

	((Upcaster *) into)->new_type = new_type == NULL ? NULL : cstring_to_text(new_type);
}

static inline Upcaster *
find_upcaster(const EsVersionedSet *in, const text *event_type, int32 version)
{
	return (Upcaster *) EsVersionedFind(in, event_type, version);
}

/* Have the definitions that are committed by now; false if there are none. */
static bool
have_upcasters(void)
{
	AcceptInvalidationMessages();
	if (unlikely(EsVersionedIsStale(&cache)))
		EsVersionedRead(&cache);
	return cache.current.all != NIL;
}

static char *
upcaster_name(const EsVersioned *upcaster)
{
	return psprintf("the upcaster of event type \"%s\" from version %d",
					text_to_cstring(upcaster->event_type), upcaster->version);
}

static void
compile_upcaster(const EsVersionedSet *of, EsVersioned *upcaster)
{
	if (upcaster->expression == NULL)
		upcaster->expression =
			EsDefinitionCompile(of->context, upcaster->sql, of->scope, JSONBOID,
								&upcaster->definer, upcaster_name(upcaster));
}

/* Where the chain from a version of a type leads. */
static const text *
final_type(const EsVersionedSet *in, const text *type, int32 version)
{
	Upcaster   *upcaster;

	while ((upcaster = find_upcaster(in, type, version)) != NULL)
	{
		version++;
		if (upcaster->new_type != NULL)
			type = upcaster->new_type;
	}
	return type;
}

/* ----- digest ----- */

/* Changes whenever definitions may have; 0 while there are none. */
uint64
EsUpcastGeneration(void)
{
	return have_upcasters() ? cache.current.generation : 0;
}

/* Add where an upcaster leads. */
static void
digest_way(EsDigest *digest, const Upcaster *upcaster)
{
	EsDigestString(digest, text_to_cstring(upcaster->versioned.event_type));
	EsDigestString(digest, psprintf("%d", upcaster->versioned.version));
	EsDigestString(digest, upcaster->new_type == NULL ? NULL :
				   text_to_cstring(upcaster->new_type));
}

/* Add what it does to the data. */
static void
digest_expression(EsDigest *digest, const EsVersionedSet *of, EsVersioned *versioned)
{
	EsRights	rights;

	compile_upcaster(of, versioned);
	EsDigestString(digest, versioned->definer.search_path);
	EsRightsEnter(&versioned->definer, &rights);
	EsDigestExpression(digest, versioned->expression);
	EsRightsLeave(&rights);
}

/*
 * What the upcasters do to the events that concern somebody, told by the type
 * that they are shown under; all zero where that is nothing.  An upcaster that
 * only leads events away counts, but not what it does to them.  Answers
 * whether it depends on the session's settings.  Fails as a reader would if
 * one of them cannot be compiled.
 */
bool
EsUpcastDigest(EsUpcastConcerns concerns, void *arg, pg_uuid_t *result)
{
	EsVersionedSet upcasters;
	EsDigest	digest;
	pg_uuid_t	sum;
	bool		any = false;
	ListCell   *cell;

	memset(result, 0, sizeof(pg_uuid_t));
	if (!have_upcasters())
		return false;
	upcasters = cache.current;
	EsDigestBegin(&digest);
	foreach(cell, upcasters.all)
	{
		EsVersioned *upcaster = lfirst(cell);
		const text *leads_to = final_type(&upcasters, upcaster->event_type,
										  upcaster->version);

		if (!concerns(leads_to, arg) && !concerns(upcaster->event_type, arg))
			continue;
		digest_way(&digest, (Upcaster *) upcaster);
		if (concerns(leads_to, arg))
			digest_expression(&digest, &upcasters, upcaster);
		any = true;
	}
	EsDigestEnd(&digest, &sum);
	if (any)
		*result = sum;
	return !digest.is_immutable;
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
	upcast->upcasters = cache.current;
	upcast->decodes = HistoricSnapshotActive();
	upcast->keep_rights = keep_rights;
	upcast->context = AllocSetContextCreate(CurrentMemoryContext,
											"eventstore upcast",
											ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(upcast->context);
	upcast->programs = palloc0(list_length(upcast->upcasters.all) * sizeof(ExprState *));
	upcast->econtext = CreateStandaloneExprContext();
	upcast->params = EsParamsCreate(upcast->upcasters.scope);
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

/* What was entered for one expression may not do for the next one. */
static void
enter_rights(EsUpcast *upcast, const EsVersioned *upcaster)
{
	const EsDefiner *definer = &upcaster->definer;

	if (upcast->definer != NULL && upcast->definer->role == definer->role &&
		(upcaster->expression->is_plain ||
		 (upcast->rights.nest_level > 0 &&
		  strcmp(upcast->definer->search_path, definer->search_path) == 0)))
		return;
	leave_rights(upcast);
	if (ES_BUG == 75)
		return;
	EsRightsEnterFor(upcaster->expression, definer, &upcast->rights);
	upcast->definer = definer;
}

/* What the upcaster runs as; its definer's rights are in force. */
static ExprState *
ready_program(EsUpcast *upcast, const EsVersioned *upcaster)
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

/*
 * Evaluate the program where functions find a snapshot to plan with, and no
 * table to read.
 */
static Datum
evaluate_decoding(ExprState *program, ExprContext *econtext, bool *isnull)
{
	Datum		value = (Datum) 0;

	if (!refusing)
	{
		next_executor_start = ExecutorStart_hook;
		ExecutorStart_hook = refuse_tables;
		refusing = true;
	}
	PushActiveSnapshot(GetCatalogSnapshot(InvalidOid));
	decoding = true;
	PG_TRY();
	{
		value = ExecEvalExpr(program, econtext, isnull);
	}
	PG_FINALLY();
	{
		decoding = false;
	}
	PG_END_TRY();
	PopActiveSnapshot();
	return value;
}

/* May the upcaster run here?  It is compiled then. */
static bool
may_run(EsUpcast *upcast, Upcaster *upcaster)
{
	if (likely(!upcast->decodes) || ES_BUG == 104)
		return true;
	if (upcaster->versioned.expression == NULL)
	{
		leave_rights(upcast);
		compile_upcaster(&upcast->upcasters, &upcaster->versioned);
	}
	return !calls_readers(upcaster->versioned.expression->cached->expr, NULL);
}

/* ----- upcast, continued ----- */

/* Tell of which event an error speaks. */
static void
point_to_event(void *arg)
{
	const EsUpcast *upcast = arg;
	const Datum *values = upcast->slot->tts_values;

	errcontext("%s, event of stream \"%s\", version " INT64_FORMAT ", position " INT64_FORMAT,
			   upcaster_name(&upcast->running->versioned),
			   TextDatumGetCString(values[ES_EVENT_STREAM_ID - 1]),
			   DatumGetInt64(values[ES_EVENT_VERSION - 1]),
			   DatumGetInt64(values[ES_EVENT_POSITION - 1]));
}

/* The data that the upcaster gives; everything is in the event's memory. */
static Datum
run_upcaster(EsUpcast *upcast, const EsVersioned *upcaster)
{
	MemoryContext saved = MemoryContextSwitchTo(upcast->econtext->ecxt_per_tuple_memory);
	ExprState  *program = ready_program(upcast, upcaster);
	Datum		data;
	bool		isnull;

	EsParamsSetSlot(upcast->params, &upcast->upcasters.scope->variables[0],
					upcaster->expression->text.used, upcast->slot);
	if (unlikely(upcast->decodes))
		data = evaluate_decoding(program, upcast->econtext, &isnull);
	else
		data = ExecEvalExpr(program, upcast->econtext, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s gives NULL", upcaster_name(upcaster)),
				 errdetail("The event is at position " INT64_FORMAT ".",
						   DatumGetInt64(upcast->slot->tts_values[ES_EVENT_POSITION - 1]))));
	MemoryContextSwitchTo(saved);
	return data;
}

/* Take the event in our slot one version further. */
static void
upcast_once(EsUpcast *upcast, Upcaster *upcaster)
{
	Datum	   *values = upcast->slot->tts_values;

	upcast->running = upcaster;
	if (upcaster->versioned.expression == NULL)
	{
		leave_rights(upcast);
		compile_upcaster(&upcast->upcasters, &upcaster->versioned);
	}
	enter_rights(upcast, &upcaster->versioned);
	values[ES_EVENT_DATA - 1] = run_upcaster(upcast, &upcaster->versioned);
	values[ES_EVENT_TYPE_VERSION - 1] = Int32GetDatum(upcaster->versioned.version + 1);
	if (upcaster->new_type != NULL)
		values[ES_EVENT_EVENT_TYPE - 1] = PointerGetDatum(upcaster->new_type);
}

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

/* Take the event in our slot along the chain, which begins with an upcaster. */
static void
upcast_to_end(EsUpcast *upcast, Upcaster *upcaster)
{
	ErrorContextCallback callback;

	callback.callback = point_to_event;
	callback.arg = upcast;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	do
		upcast_once(upcast, upcaster);
	while (ES_BUG != 71 &&
		   (upcaster = upcaster_of(upcast, upcast->slot)) != NULL);
	error_context_stack = callback.previous;
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
	upcast_to_end(upcast, upcaster);
	if (!upcast->keep_rights)
		leave_rights(upcast);
	return upcast->slot;
}

/* The type that the event is to be shown under; runs no upcaster. */
const text *
EsUpcastType(const EsUpcast *upcast, TupleTableSlot *slot)
{
	const text *type;

	slot_getsomeattrs(slot, ES_EVENT_EVENT_TYPE);
	type = DatumGetTextPP(slot->tts_values[ES_EVENT_EVENT_TYPE - 1]);
	if (upcast == NULL)
		return type;
	return final_type(&upcast->upcasters, type,
					  DatumGetInt32(slot->tts_values[ES_EVENT_TYPE_VERSION - 1]));
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

/* Does the chain of the event in the slot go through this version of a type? */
static bool
goes_through(const EsVersionedSet *in, TupleTableSlot *slot, const Upcaster *through)
{
	bool		isnull;
	const text *type = DatumGetTextPP(slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull));
	int32		version = DatumGetInt32(slot_getattr(slot, ES_EVENT_TYPE_VERSION, &isnull));
	Upcaster   *upcaster;

	while ((upcaster = find_upcaster(in, type, version)) != NULL && upcaster != through)
	{
		version++;
		if (upcaster->new_type != NULL)
			type = upcaster->new_type;
	}
	return upcaster != NULL;
}

/* Upcast the newest events whose chain goes through the upcaster, a few. */
static void
try_on_samples(EsUpcast *upcast, const Upcaster *upcaster, EsScan *scan)
{
	TupleTableSlot *slot;
	int			tried = 0;

	for (int i = 0; i < ES_SAMPLE_SEARCH && tried < ES_SAMPLES &&
		 (slot = EsScanNext(scan)) != NULL; i++)
	{
		if (!goes_through(&upcast->upcasters, slot, upcaster))
			continue;
		(void) EsUpcastSlot(upcast, slot);
		tried++;
	}
}

/*
 * Compile an upcaster that was just defined, and try it on stored events, as
 * far as there are any among the last of the log.
 */
static void
check_upcaster(const text *event_type, int32 version)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	EsScan	   *scan = EsScanPositions(event, snapshot, 1, PG_INT64_MAX,
									   BackwardScanDirection);
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(event), false);
	Upcaster   *upcaster = upcast == NULL ? NULL :
		find_upcaster(&upcast->upcasters, event_type, version);

	if (upcaster != NULL)
	{
		compile_upcaster(&upcast->upcasters, &upcaster->versioned);
		try_on_samples(upcast, upcaster, scan);
	}
	EsUpcastEnd(upcast);
	EsScanEnd(scan);
	UnregisterSnapshot(snapshot);
	table_close(event, AccessShareLock);
}

/*
 * es_upcast(event_type text, from_version integer, expression text,
 *			 new_type text) → void
 */
Datum
es_upcast(PG_FUNCTION_ARGS)
{
	EsDefinitionRow row;

	EsRequireReadWrite("es_upcast()");
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
	EsDefinitionArguments(fcinfo, EsStoreGet()->upcaster, 4, &row);
	(void) EsDefinitionWrite(&row, ES_CONFLICT_REPLACE);
	check_upcaster(PG_GETARG_TEXT_PP(0), PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

/*
 * es_drop_upcaster(event_type text, from_version integer, if_exists boolean)
 *		→ void
 */
Datum
es_drop_upcaster(PG_FUNCTION_ARGS)
{
	EsDefinitionRow key;

	EsRequireReadWrite("es_drop_upcaster()");
	EsRequireArgument(fcinfo, 0, "event_type");
	EsRequireArgument(fcinfo, 1, "from_version");
	EsDefinitionArguments(fcinfo, EsStoreGet()->upcaster, 2, &key);
	EsDefinitionDelete(&key, EsFlagArgument(fcinfo, 2),
					   psprintf("upcaster of event type \"%s\" from version %d",
								text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT32(1)));
	PG_RETURN_VOID();
}
