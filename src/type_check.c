/*
 * type_check.c: checks of event types.
 *
 * Checks are compiled when they are first needed, and their programs made for
 * one transaction, like a query's.
 *
 * A check may call a function that appends.  While one runs, nothing that it
 * uses may go away: the declarations stay as they are, and an append inside
 * of it works with programs of its own.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "compat.h"
#include "point.h"
#include "type_check.h"

/* What checks need to run. */
typedef struct Checker
{
	MemoryContext context;		/* of all this */
	MemoryContext programs;		/* its child, for one transaction */
	ExprContext *econtext;		/* its per-tuple memory is the event's */
	ParamListInfo params;
	TupleTableSlot *slot;		/* the event as it is known so far */
} Checker;

static Checker checker;			/* context NULL: none yet */
static LocalTransactionId checker_lxid = InvalidLocalTransactionId;
static int	checking = 0;		/* checks that are running */

/* While a check runs, the declarations must stay. */
bool
EsTypeCheckIsRunning(void)
{
	return checking > 0;
}

/* Forget all that was made for declarations that are no more. */
void
EsTypeCheckForget(void)
{
	if (checker.context != NULL)
		MemoryContextDelete(checker.context);
	memset(&checker, 0, sizeof(Checker));
}

/* ----- compile ----- */

/* Only what the event says is known before it has its place. */
static int
unknown_param(const EsExpression *check, const EsVariable *event)
{
	static const AttrNumber known[] = {
		0, ES_EVENT_TYPE_VERSION, ES_EVENT_STREAM_ID, ES_EVENT_EVENT_TYPE,
		ES_EVENT_DATA, ES_EVENT_METADATA, ES_EVENT_TAGS
	};
	Bitmapset  *others = bms_copy(check->text.used);

	for (size_t i = 0; i < lengthof(known); i++)
		others = bms_del_member(others, event->param + known[i]);
	return bms_next_member(others, -1);
}

/* Compile the check, if that was not done; the type has one. */
void
EsTypeCheckCompile(const EsVersionedSet *set, EsEventType *type)
{
	EsVersioned *versioned = &type->versioned;
	const EsVariable *event = &set->scope->variables[0];
	EsExpression *check;
	int			param;

	if (versioned->expression != NULL)
		return;
	check = EsDefinitionCompile(set->context, versioned->sql, set->scope,
								BOOLOID, &versioned->definer,
								psprintf("event type \"%s\"",
										 text_to_cstring(versioned->event_type)));
	param = unknown_param(check, event);
	if (param >= 0)
	{
		EsExpressionFree(check);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("a check of an event type cannot use event.%s",
						NameStr(TupleDescAttr(event->desc, param - event->param - 1)->attname)),
				 errdetail("It is not known before the event is stored.")));
	}
	versioned->expression = check;
}

/* ----- run ----- */

static void
make_checker(Checker *made, MemoryContext parent, const EsScope *scope)
{
	MemoryContext saved;

	made->context = AllocSetContextCreate(parent, "eventstore type checks",
										  ALLOCSET_SMALL_SIZES);
	made->programs = AllocSetContextCreate(made->context, "eventstore type programs",
										   ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(made->context);
	made->econtext = CreateStandaloneExprContext();
	made->params = EsParamsCreate(scope);
	made->econtext->ecxt_param_list_info = made->params;
	made->slot = MakeSingleTupleTableSlot(scope->variables[0].desc, &TTSOpsVirtual);
	MemoryContextSwitchTo(saved);
}

/* Forget the programs of another transaction, without any clean-up of theirs. */
static void
forget_programs(const EsVersionedSet *set)
{
	ListCell   *cell;

	if (checker_lxid == EsCurrentLxid())
		return;
	foreach(cell, set->all)
		((EsEventType *) lfirst(cell))->program = NULL;
	if (checker.context != NULL)
		MemoryContextReset(checker.programs);
	checker_lxid = EsCurrentLxid();
}

/* The event as it is known so far. */
static void
fill_slot(TupleTableSlot *slot, text *stream_id, const EsNewEvent *event)
{
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	slot->tts_values[ES_EVENT_TYPE_VERSION - 1] = Int32GetDatum(event->type_version);
	slot->tts_values[ES_EVENT_STREAM_ID - 1] = PointerGetDatum(stream_id);
	slot->tts_values[ES_EVENT_EVENT_TYPE - 1] = PointerGetDatum(event->event_type);
	slot->tts_values[ES_EVENT_DATA - 1] = JsonbPGetDatum(event->data);
	slot->tts_values[ES_EVENT_METADATA - 1] = PointerGetDatum(event->metadata);
	slot->tts_values[ES_EVENT_TAGS - 1] = PointerGetDatum(event->tags);
	memset(&slot->tts_isnull[ES_EVENT_TYPE_VERSION - 1], false, 4 * sizeof(bool));
	slot->tts_isnull[ES_EVENT_METADATA - 1] = event->metadata == NULL;
	slot->tts_isnull[ES_EVENT_TAGS - 1] = event->tags == NULL;
	ExecStoreVirtualTuple(slot);
}

static void
report_violation(const EsVersioned *type)
{
	char	   *name = text_to_cstring(type->event_type);

	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("event violates the check of its type \"%s\", version %d",
					name, type->version),
			 errdetail("The expression is: %s", type->sql),
			 err_generic_string(PG_DIAG_SCHEMA_NAME,
								get_namespace_name(EsStoreGet()->schema)),
			 err_generic_string(PG_DIAG_TABLE_NAME, "es_event"),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME,
								psprintf("%s.%d", name, type->version))));
}

/* What the check runs as, made where it is not there yet. */
static ExprState *
ready_program(EsEventType *type, Checker *with, bool nested)
{
	Expr	   *expr = (Expr *) type->versioned.expression->cached->expr;
	MemoryContext saved;
	ExprState  *program;

	if (!nested && type->program != NULL)
		return type->program;
	saved = MemoryContextSwitchTo(with->programs);
	program = ExecInitExprWithParams(expr, with->params);
	MemoryContextSwitchTo(saved);
	if (!nested)
		type->program = program;
	return program;
}

/* Tell which check it was that failed by itself. */
static void
point_to_check(void *arg)
{
	const EsVersioned *type = arg;

	errcontext("check of event type \"%s\", version %d",
			   text_to_cstring(type->event_type), type->version);
}

/* Evaluate the check; the definer's rights are in force.  NULL passes. */
static bool
run_check(const EsVariable *event, EsEventType *type, Checker *with, bool nested)
{
	ErrorContextCallback callback;
	ExprState  *program;
	bool		isnull;
	Datum		value;

	callback.callback = point_to_check;
	callback.arg = type;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	checking++;
	PG_TRY();
	{
		MemoryContext saved = MemoryContextSwitchTo(with->econtext->ecxt_per_tuple_memory);

		program = ready_program(type, with, nested);
		EsParamsSetSlot(with->params, event,
						type->versioned.expression->text.used, with->slot);
		value = ExecEvalExpr(program, with->econtext, &isnull);
		MemoryContextSwitchTo(saved);
	}
	PG_CATCH();
	{
		checking--;
		checker_lxid = InvalidLocalTransactionId;	/* programs stopped midway */
		PG_RE_THROW();
	}
	PG_END_TRY();
	checking--;
	error_context_stack = callback.previous;
	return isnull || DatumGetBool(value) || ES_BUG == 72;
}

/* Check one event, whose type has a check; 23514 if it must not be. */
void
EsTypeCheck(const EsVersionedSet *set, EsEventType *type, text *stream_id,
			const EsNewEvent *event)
{
	bool		nested = checking > 0;
	Checker		own = {0};
	Checker    *with = nested ? &own : &checker;
	EsRights	rights;
	bool		passes;

	EsTypeCheckCompile(set, type);
	if (!nested)
		forget_programs(set);
	if (with->context == NULL)
		make_checker(with, nested ? CurrentMemoryContext : CacheMemoryContext, set->scope);
	EsRightsEnterFor(type->versioned.expression, &type->versioned.definer, &rights);
	fill_slot(with->slot, stream_id, event);
	passes = run_check(&set->scope->variables[0], type, with, nested);
	EsRightsLeave(&rights);
	ResetExprContext(with->econtext);
	if (nested)
		MemoryContextDelete(own.context);
	if (!passes)
		report_violation(&type->versioned);
}
