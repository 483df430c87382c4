/*
 * fold.c: run events through an aggregate.
 *
 * This is a loop that runs once an event, so it does nothing twice and
 * nothing unasked.  The state is kept taken apart: each field of a composite
 * state is a parameter of the expressions, and an expression that ends in a
 * row constructor is evaluated field by field straight into them, without
 * ever forming a row; fields it passes on unchanged are not touched at all.
 * Of the event, only the columns that the expression uses are looked at.
 *
 * All that an expression leaves behind is gone with the next event.  Values
 * that stay are copied into the state's own memory when they change, in plain
 * form, so that no later event has to unpack them again.
 *
 * Programs are made for one transaction, like a query's: what functions
 * remember between calls is not meant to live longer.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "compat.h"
#include "fold.h"
#include "lifecycle.h"
#include "point.h"

/* ----- the state ----- */

/* Forget programs and state, without running any clean-up of theirs. */
void
EsFoldForget(EsAggregate *aggregate)
{
	MemoryContextReset(aggregate->program_context);
	MemoryContextReset(aggregate->state_context);
	for (int i = 0; i < aggregate->nevolvers; i++)
		aggregate->evolvers[i].program = NULL;
	aggregate->econtext = NULL;
	aggregate->to_jsonb = NULL;
	aggregate->forgotten++;
}

static Datum
copy_field(Form_pg_attribute att, Datum value)
{
	if (att->attlen == -1)
		return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	return datumCopy(value, false, att->attlen);
}

/*
 * Make these the values of the fields, all or those listed.  Old values are
 * released last: a new one may lie inside of the old one of another field.
 */
static void
store_fields(EsAggregate *aggregate, const Datum *values, const bool *nulls,
			 const int *fields, int nfields)
{
	MemoryContext saved = MemoryContextSwitchTo(aggregate->state_context);
	int			noutdated = 0;

	for (int i = 0; i < nfields; i++)
	{
		int			field = fields == NULL ? i : fields[i];
		Form_pg_attribute att = TupleDescAttr(aggregate->fields, field);
		ParamExternData *current = &aggregate->state[field];

		if (!att->attbyval)
		{
			if (!current->isnull)
			{
				if (!nulls[field] && current->value == values[field])
					continue;
				aggregate->outdated[noutdated++] = DatumGetPointer(current->value);
			}
			current->value = nulls[field] ? (Datum) 0 :
				copy_field(att, values[field]);
		}
		else
			current->value = values[field];
		current->isnull = nulls[field];
	}
	while (noutdated > 0)
		pfree(aggregate->outdated[--noutdated]);
	aggregate->state_null = false;
	MemoryContextSwitchTo(saved);
}

/* Take a whole composite state apart. */
static void
store_row(EsAggregate *aggregate, Datum state)
{
	HeapTupleHeader row = DatumGetHeapTupleHeader(state);
	Datum	   *values = palloc(aggregate->nfields * sizeof(Datum));
	bool	   *nulls = palloc(aggregate->nfields * sizeof(bool));
	HeapTupleData tuple;

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	heap_deform_tuple(&tuple, aggregate->row, values, nulls);
	store_fields(aggregate, values, nulls, NULL, aggregate->nfields);
}

/* Make this the state.  Leaves garbage in the current memory context. */
void
EsFoldSetState(EsAggregate *aggregate, Datum state, bool isnull)
{
	bool		field_null = isnull;

	if (aggregate->row == NULL)
		store_fields(aggregate, &state, &field_null, NULL, 1);
	else if (!isnull)
		store_row(aggregate, state);
	else
	{
		for (int i = 0; i < aggregate->nfields; i++)
			aggregate->state[i].isnull = true;
		MemoryContextReset(aggregate->state_context);
	}
	aggregate->state_null = isnull;
}

/*
 * Bring the parameter for the whole of a composite state up to date.  The row
 * is made in the event's memory.
 */
void
EsFoldWholeState(EsAggregate *aggregate)
{
	ParamExternData *whole = aggregate->state - 1;
	MemoryContext saved;
	Datum	   *values;
	bool	   *nulls;

	if (aggregate->row == NULL)
		return;
	saved = MemoryContextSwitchTo(aggregate->econtext->ecxt_per_tuple_memory);
	values = palloc(aggregate->nfields * sizeof(Datum));
	nulls = palloc(aggregate->nfields * sizeof(bool));
	for (int i = 0; i < aggregate->nfields; i++)
	{
		values[i] = aggregate->state[i].value;
		nulls[i] = aggregate->state[i].isnull;
	}
	whole->isnull = aggregate->state_null;
	whole->value = aggregate->state_null ? (Datum) 0 :
		HeapTupleGetDatum(heap_form_tuple(aggregate->row, values, nulls));
	MemoryContextSwitchTo(saved);
}

/* ----- programs ----- */

/* How often each parameter occurs in an expression. */
typedef struct ParamCount
{
	const EsAggregate *aggregate;
	int		   *counts;			/* by parameter number */
} ParamCount;

static bool
count_params(Node *node, void *context)
{
	ParamCount *count = context;

	if (node == NULL)
		return false;
	if (IsA(node, Param))
	{
		count->counts[((Param *) node)->paramid]++;
		return false;
	}
	return expression_tree_walker(node, count_params, context);
}

/* Does the expression hand on a field of the state as it is? */
static bool
is_unchanged(const EsAggregate *aggregate, Node *expr, int field)
{
	return IsA(expr, Param) &&
		((Param *) expr)->paramkind == PARAM_EXTERN &&
		((Param *) expr)->paramid ==
		aggregate->scope->variables[0].param + 1 + field;
}

/* What the program computes: the changed fields, where that can be told. */
static List *
program_targets(EsAggregate *aggregate, EsEvolver *evolver, Expr *expr)
{
	List	   *targets = NIL;
	int			field = 0;
	ListCell   *cell;

	evolver->nchanged = 0;
	evolver->changed = palloc(aggregate->nfields * sizeof(int));
	evolver->whole_result = aggregate->row == NULL || !IsA(expr, RowExpr) ||
		list_length(((RowExpr *) expr)->args) != aggregate->nfields ||
		((RowExpr *) expr)->row_typeid != aggregate->row->tdtypeid;
	if (evolver->whole_result)
		return list_make1(makeTargetEntry(expr, 1, NULL, false));
	foreach(cell, ((RowExpr *) expr)->args)
	{
		if (!is_unchanged(aggregate, lfirst(cell), field))
		{
			targets = lappend(targets, makeTargetEntry(lfirst(cell), field + 1,
													   NULL, false));
			evolver->changed[evolver->nchanged++] = field;
		}
		field++;
	}
	return targets;
}

/* What the program reads. */
static void
program_inputs(EsAggregate *aggregate, EsEvolver *evolver, Expr *expr)
{
	EsVariable *state = &aggregate->scope->variables[0];
	EsVariable *event = &aggregate->scope->variables[1];
	ParamCount	count = {aggregate};

	count.counts = palloc0((aggregate->scope->nparams + 1) * sizeof(int));
	(void) count_params((Node *) expr, &count);
	evolver->uses_state = aggregate->row != NULL && count.counts[state->param] > 0;
	evolver->nuses = 0;
	evolver->uses = palloc((event->desc->natts + 1) * sizeof(EsEventUse));
	evolver->last_column = ES_EVENT_EVENT_TYPE;
	for (int column = 0; column <= event->desc->natts; column++)
	{
		EsEventUse *use = &evolver->uses[evolver->nuses];

		if (count.counts[event->param + column] == 0)
			continue;
		use->column = column;
		use->plain = column > 0 && count.counts[event->param + column] > 1 &&
			TupleDescAttr(event->desc, column - 1)->attlen == -1;
		evolver->last_column = Max(evolver->last_column, column);
		evolver->nuses++;
	}
}

static void
make_econtext(EsAggregate *aggregate)
{
	if (aggregate->econtext != NULL)
		return;
	aggregate->econtext = CreateStandaloneExprContext();
	aggregate->econtext->ecxt_param_list_info = aggregate->params;
	aggregate->outdated = palloc(aggregate->nfields * sizeof(void *));
}

/* Make ready what the evolver does, for the rest of the transaction. */
static void
make_program(EsAggregate *aggregate, EsEvolver *evolver)
{
	MemoryContext saved = MemoryContextSwitchTo(aggregate->program_context);
	Expr	   *expr = EsExpressionPlanned(evolver->expression);
	List	   *targets = program_targets(aggregate, evolver, expr);
	TupleDesc	desc = aggregate->fields;

	program_inputs(aggregate, evolver, expr);
	if (evolver->whole_result && aggregate->row != NULL)
	{
		desc = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(desc, 1, "state", aggregate->state_type, -1, 0);
	}
	evolver->program =
		ExecBuildProjectionInfo(targets, aggregate->econtext,
								MakeSingleTupleTableSlot(desc, &TTSOpsVirtual),
								NULL, NULL);
	MemoryContextSwitchTo(saved);
}

/* ----- events ----- */

static inline EsEvolver *
find_evolver(const EsAggregate *aggregate, const text *event_type)
{
	const char *type = VARDATA_ANY(event_type);
	int			len = VARSIZE_ANY_EXHDR(event_type);
	uint32		slot = EsEventTypeHash(type, len) & aggregate->hash_mask;
	EsEvolver  *evolver;

	while ((evolver = aggregate->by_hash[slot]) != NULL)
	{
		if (evolver->event_type_len == len &&
			memcmp(evolver->event_type, type, len) == 0)
			return evolver;
		slot = (slot + 1) & aggregate->hash_mask;
	}
	return NULL;
}

/* Does an event of this type do anything to the state? */
bool
EsFoldConcerns(const EsAggregate *aggregate, const text *event_type)
{
	return find_evolver(aggregate, event_type) != NULL;
}

/* Hand the program the columns of the event that it reads. */
static inline void
set_event(EsAggregate *aggregate, const EsEvolver *evolver, TupleTableSlot *slot)
{
	ParamExternData *event =
	&aggregate->params->params[aggregate->scope->variables[1].param - 1];

	slot_getsomeattrs(slot, evolver->last_column);
	for (int i = 0; i < evolver->nuses; i++)
	{
		AttrNumber	column = evolver->uses[i].column;
		ParamExternData *param = &event[column];

		if (column == 0)
		{
			param->value = ExecFetchSlotHeapTupleDatum(slot);
			param->isnull = false;
			continue;
		}
		param->value = slot->tts_values[column - 1];
		param->isnull = slot->tts_isnull[column - 1];
		if (evolver->uses[i].plain && !param->isnull)
			param->value = PointerGetDatum(PG_DETOAST_DATUM(param->value));
	}
}

/* Let one event change the state.  The definer's rights are in force. */
void
EsFoldApply(EsAggregate *aggregate, TupleTableSlot *slot)
{
	ExprContext *econtext = aggregate->econtext;
	EsEvolver  *evolver;
	TupleTableSlot *result;
	MemoryContext saved;

	slot_getsomeattrs(slot, ES_EVENT_EVENT_TYPE);
	evolver = find_evolver(aggregate,
						   DatumGetTextPP(slot->tts_values[ES_EVENT_EVENT_TYPE - 1]));
	if (evolver == NULL)
		return;
	if (unlikely(evolver->program == NULL))
		make_program(aggregate, evolver);

	saved = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	set_event(aggregate, evolver, slot);
	if (evolver->uses_state)
		EsFoldWholeState(aggregate);
	result = ExecProject(evolver->program);
	if (!evolver->whole_result)
		store_fields(aggregate, result->tts_values, result->tts_isnull,
					 evolver->changed, evolver->nchanged);
	else
		EsFoldSetState(aggregate, result->tts_values[0], result->tts_isnull[0]);
	MemoryContextSwitchTo(saved);
	ResetExprContext(econtext);
}

/* ----- a stream ----- */

/* Begin at the initial state, in the definer's name. */
static void
begin(EsFold *fold, EsAggregate *aggregate, Relation event)
{
	MemoryContext saved = MemoryContextSwitchTo(aggregate->program_context);

	make_econtext(aggregate);
	MemoryContextSwitchTo(saved);
	memset(fold, 0, sizeof(EsFold));
	fold->aggregate = aggregate;
	fold->event = event;
	fold->limit.version = PG_INT64_MAX;
	fold->limit.at = DT_NOEND;
	EsRightsEnter(&aggregate->definer, &fold->rights);
	EsFoldReset(fold);
}

/*
 * Begin a fold of a stream at the initial state, in the definer's name until
 * EsFoldEnd.  The events to come are those that the snapshot sees.  42809 for
 * an aggregate that folds no streams.
 */
void
EsFoldBegin(EsFold *fold, EsAggregate *aggregate, Relation event,
			text *stream_id, Snapshot snapshot)
{
	if (aggregate->boundary != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("aggregate \"%s\" has a boundary and folds no stream",
						aggregate->name),
				 errhint("Its state is that of a command: es_boundary_state().")));
	begin(fold, aggregate, event);
	fold->stream_id = stream_id;
	fold->snapshot = snapshot;
}

/*
 * Begin a fold of a boundary, likewise; its events are EsFoldApply's one by
 * one.  The command must stay until EsFoldEnd.
 */
void
EsFoldBeginBoundary(EsFold *fold, EsAggregate *aggregate, Relation event,
					Jsonb *command)
{
	Assert(aggregate->boundary != NULL);
	EsParamSet(aggregate->params, aggregate->scope->variables[2].param,
			   JsonbPGetDatum(command), false);
	begin(fold, aggregate, event);
}

/*
 * Where the fold stands before the first event that is shown: at the version
 * of the last one that is not, if the limit lets it get there.
 */
static int64
hidden_version(const EsFold *fold)
{
	if (fold->first <= 1 || fold->limit.at != DT_NOEND)
		return 0;
	return Min(fold->first - 1, fold->limit.version);
}

/* Back to the initial state. */
void
EsFoldReset(EsFold *fold)
{
	EsAggregate *aggregate = fold->aggregate;
	MemoryContext saved;

	for (int i = 0; i < aggregate->nfields; i++)
		aggregate->state[i].isnull = true;
	MemoryContextReset(aggregate->state_context);
	saved = MemoryContextSwitchTo(aggregate->econtext->ecxt_per_tuple_memory);
	EsFoldSetState(aggregate, aggregate->initial, aggregate->initial_null);
	MemoryContextSwitchTo(saved);
	ResetExprContext(aggregate->econtext);
	fold->version = fold->base = hidden_version(fold);
	fold->since = 0;
}

/* Look up where the stream begins, if that was not done; once the limit is set. */
void
EsFoldFindFirst(EsFold *fold)
{
	if (fold->first > 0)
		return;
	fold->first = ES_BUG == 78 ? 1 :
		EsStreamFirstShown(fold->event, fold->stream_id, fold->snapshot);
	fold->version = fold->base = hidden_version(fold);
}

/* Begin to walk along the stream, from a version on, up to the limit. */
void
EsFoldScan(EsFold *fold, int64 from_version)
{
	EsFoldFindFirst(fold);
	fold->upcast = EsUpcastBegin(RelationGetDescr(fold->event), false);
	fold->scan = EsScanStream(fold->event, fold->snapshot, fold->stream_id,
							  Max(from_version, fold->first), fold->limit.version,
							  ForwardScanDirection);
}

/* Read the next event, into fold->slot; false at the end or the limit. */
bool
EsFoldFetch(EsFold *fold)
{
	TupleTableSlot *slot = fold->slot = EsScanNext(fold->scan);

	if (slot == NULL)
		return false;
	slot_getsomeattrs(slot, ES_EVENT_EVENT_TYPE);
	return DatumGetTimestampTz(slot->tts_values[ES_EVENT_RECORDED_AT - 1]) <=
		fold->limit.at;
}

/*
 * Read the event that a restored state says it ends with, at which the scan
 * began.  False if it is not there: then the state is worth nothing.
 */
bool
EsFoldFetchBase(EsFold *fold)
{
	Datum	   *values;

	if (!EsFoldFetch(fold))
		return false;
	values = fold->slot->tts_values;
	if (DatumGetInt64(values[ES_EVENT_VERSION - 1]) != fold->version ||
		(ES_BUG != 44 &&
		 memcmp(DatumGetUUIDP(values[ES_EVENT_EVENT_ID - 1])->data,
				fold->event_id.data, UUID_LEN) != 0))
		return false;
	EsFoldNote(fold);
	return true;
}

/*
 * Fold the next event; it stays in the slot.  False at the end.  An event that
 * changes nothing in its newest form is upcast only where it is to be shown.
 */
bool
EsFoldNext(EsFold *fold)
{
	if (!EsFoldFetch(fold))
		return false;
	if (fold->upcast == NULL)
	{
		fold->shown = fold->slot;
		EsFoldApply(fold->aggregate, fold->shown);
	}
	else if (fold->show_all ||
			 EsFoldConcerns(fold->aggregate, EsUpcastType(fold->upcast, fold->slot)))
	{
		fold->shown = EsUpcastSlot(fold->upcast, fold->slot);
		EsFoldApply(fold->aggregate, fold->shown);
	}
	EsFoldNote(fold);
	return true;
}

/* Note the event in the slot as the last one that the state contains. */
void
EsFoldNote(EsFold *fold)
{
	Datum	   *values = fold->slot->tts_values;

	fold->version = DatumGetInt64(values[ES_EVENT_VERSION - 1]);
	fold->recorded_at = DatumGetTimestampTz(values[ES_EVENT_RECORDED_AT - 1]);
	fold->event_id = *DatumGetUUIDP(values[ES_EVENT_EVENT_ID - 1]);
	if (fold->since == 0)
		fold->since = fold->recorded_at;
}

void
EsFoldScanEnd(EsFold *fold)
{
	if (fold->scan == NULL)
		return;
	EsUpcastEnd(fold->upcast);
	EsScanEnd(fold->scan);
	fold->scan = NULL;
}

/* End the fold and act in the caller's name again; the state stays. */
void
EsFoldEnd(EsFold *fold)
{
	EsFoldScanEnd(fold);
	ReScanExprContext(fold->aggregate->econtext);
	EsRightsLeave(&fold->rights);
}

/*
 * Fold the events that have been added since EsFoldEnd.  The aggregate has
 * not been closed, so it holds the state still.
 */
void
EsFoldResume(EsFold *fold)
{
	EsRightsEnter(&fold->aggregate->definer, &fold->rights);
	EsFoldScan(fold, fold->version + 1);
	while (EsFoldNext(fold))
		;
	EsFoldScanEnd(fold);
}

/* ----- the state as jsonb ----- */

static void
make_to_jsonb(EsAggregate *aggregate)
{
	MemoryContext saved = MemoryContextSwitchTo(aggregate->program_context);
	EsVariable *state = &aggregate->scope->variables[0];
	Param	   *param = makeNode(Param);
	FuncExpr   *call;

	param->paramkind = PARAM_EXTERN;
	param->paramid = state->param;
	param->paramtype = state->type;
	param->paramtypmod = state->typmod;
	param->paramcollid = state->collation;
	param->location = -1;
	call = makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(param), InvalidOid,
						state->collation, COERCE_EXPLICIT_CALL);
	aggregate->to_jsonb = ExecInitExpr((Expr *) call, NULL);
	MemoryContextSwitchTo(saved);
}

/*
 * The state as jsonb, in the current memory context; NULL for NULL.  Call
 * inside a fold: casts to json that the state's type may have are run.
 */
Jsonb *
EsFoldStateJsonb(EsAggregate *aggregate)
{
	Jsonb	   *result;
	Datum		value;
	bool		isnull;

	if (aggregate->state_null)
		return NULL;
	if (aggregate->state_type == JSONBOID)
		return DatumGetJsonbPCopy(aggregate->state[0].value);
	if (aggregate->to_jsonb == NULL)
		make_to_jsonb(aggregate);
	EsFoldWholeState(aggregate);
	value = ExecEvalExprSwitchContext(aggregate->to_jsonb, aggregate->econtext,
									  &isnull);
	result = isnull ? NULL : DatumGetJsonbPCopy(value);
	ResetExprContext(aggregate->econtext);
	return result;
}
