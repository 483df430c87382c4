/*
 * aggregate.c: aggregates, compiled and kept by each session.
 *
 * A definition is a row of es_aggregate and one row of es_evolver for each
 * event type.  A session compiles it when it first needs it and keeps the
 * result until the definition, the state's type or the owner changes: a
 * trigger on the tables (or our callbacks on the server's caches) raises the
 * generation, and what was made from an older one is made again.
 *
 * One compiled aggregate folds one stream at a time.  Where an expression
 * folds the same aggregate once more, that fold gets a transient copy.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "aggregate.h"
#include "catalog.h"
#include "compat.h"
#include "digest.h"
#include "fold.h"
#include "stream.h"

enum
{
	EVOLVER_AGGREGATE = 1, EVOLVER_TYPE, EVOLVER_EXPRESSION
};

/* The session's compiled aggregates, by name. */
typedef struct CacheEntry
{
	char		name[NAMEDATALEN];	/* hash key, hence first */
	EsAggregate *aggregate;
} CacheEntry;

static HTAB *cache = NULL;
static uint64 generation = 1;	/* of all definitions */
static Oid	definitions = InvalidOid;	/* es_aggregate, once it was read */
static EsDependentsCheck check_dependents = NULL;

/* ----- what makes a compiled aggregate stale ----- */

static bool
concerns_a_state(Oid relid)
{
	HASH_SEQ_STATUS all;
	CacheEntry *entry;

	hash_seq_init(&all, cache);
	while ((entry = hash_seq_search(&all)) != NULL)
		if (list_member_oid(entry->aggregate->relations, relid))
		{
			hash_seq_term(&all);
			return true;
		}
	return false;
}

static void
on_relation_change(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == definitions ||
		(cache != NULL && concerns_a_state(relid)))
		generation++;
}

static bool
depends_on_row(const EsAggregate *aggregate, int cacheid, uint32 hash)
{
	if (hash == 0)
		return true;
	if (cacheid == PROCOID)
		return list_member_int(aggregate->function_hashes, (int) hash);
	return hash == (cacheid == TYPEOID ? aggregate->type_hash : aggregate->role_hash);
}

/* A type's, a role's or a function's row changed. */
static void
on_row_change(Datum arg, int cacheid, uint32 hash)
{
	HASH_SEQ_STATUS all;
	CacheEntry *entry;

	if (cache == NULL)
		return;
	hash_seq_init(&all, cache);
	while ((entry = hash_seq_search(&all)) != NULL)
		if (depends_on_row(entry->aggregate, cacheid, hash))
			generation++;
}

/*
 * The generation of the definitions: what was read from es_aggregate is right
 * as long as it stays the same.
 */
uint64
EsAggregateGeneration(void)
{
	definitions = EsStoreGet()->aggregate;
	return generation;
}

void
EsAggregateInit(void)
{
	EsOnRelationChange(on_relation_change, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, on_row_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, on_row_change, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, on_row_change, (Datum) 0);
}

/* Have a later room check what it keeps for an aggregate that was changed. */
void
EsAggregateOnChange(EsDependentsCheck check)
{
	check_dependents = check;
}

/* ----- compile ----- */

/* What a scan of the definition's row fills in. */
typedef struct DefinitionRow
{
	EsAggregate *aggregate;
	char	   *initial;
	bool		found;
} DefinitionRow;

static bool
visit_aggregate(Relation rel, HeapTuple tuple, void *arg)
{
	DefinitionRow *row = arg;
	EsAggregate *aggregate = row->aggregate;
	TupleDesc	desc = RelationGetDescr(rel);
	bool		isnull;
	Datum		value;

	row->found = true;
	row->initial = EsRowText(rel, tuple, ES_AGGREGATE_INITIAL);
	aggregate->state_type = DatumGetObjectId(heap_getattr(tuple, ES_AGGREGATE_TYPE, desc, &isnull));
	aggregate->definer = EsDefinerOfRow(rel, tuple, ES_AGGREGATE_OWNER, ES_AGGREGATE_PATH);
	value = heap_getattr(tuple, ES_AGGREGATE_EVERY, desc, &isnull);
	aggregate->snapshot_every = isnull ? 0 : DatumGetInt32(value);
	value = heap_getattr(tuple, ES_AGGREGATE_INTERVAL, desc, &isnull);
	if (!isnull)
		aggregate->snapshot_interval = memcpy(palloc(sizeof(Interval)),
											  DatumGetIntervalP(value),
											  sizeof(Interval));
	value = heap_getattr(tuple, ES_AGGREGATE_BOUNDARY, desc, &isnull);
	if (!isnull)
		aggregate->boundary = EsQueryTemplateParse(DatumGetJsonbP(value));
	return false;
}

/* 42704: there is no aggregate of the name. */
void
EsReportNoAggregate(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("aggregate \"%s\" does not exist", name),
			 errhint("Create it with es_create_aggregate().")));
}

/* Type and owner must still exist, since the definition names them. */
static void
check_references(const EsAggregate *aggregate)
{
	EsDefinerCheck(&aggregate->definer, psprintf("aggregate \"%s\"", aggregate->name));
	if (!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(aggregate->state_type)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the state type of aggregate \"%s\" does not exist any more",
						aggregate->name),
				 errhint("Drop the aggregate and create it again.")));
}

/* The state's fields: a composite type's columns, or one for all of it. */
static void
describe_state(EsAggregate *aggregate)
{
	EsVariable *variable;
	Oid			event_type = get_rel_type_id(EsStoreGet()->event);

	aggregate->scope = EsScopeCreate(aggregate->context);
	EsScopeAdd(aggregate->scope, "state", aggregate->state_type, -1);
	EsScopeAdd(aggregate->scope, "event", event_type, -1);
	if (aggregate->boundary != NULL)
		EsScopeAdd(aggregate->scope, "command", JSONBOID, -1);
	variable = &aggregate->scope->variables[0];
	aggregate->row = variable->desc;
	aggregate->fields = variable->desc;
	if (aggregate->row == NULL)
	{
		aggregate->fields = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(aggregate->fields, 1, "state",
						   aggregate->state_type, -1, 0);
	}
	aggregate->nfields = aggregate->fields->natts;
	aggregate->params = EsParamsCreate(aggregate->scope);
	aggregate->state = &aggregate->params->params[variable->param -
												  (aggregate->row == NULL ? 1 : 0)];
	aggregate->type_hash = GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(aggregate->state_type));
	aggregate->role_hash = GetSysCacheHashValue1(AUTHOID, ObjectIdGetDatum(aggregate->definer.role));
	aggregate->relations = list_make1_oid(EsStoreGet()->event);
}

/* A composite state may be written as a JSON object. */
static Datum
row_from_json(EsAggregate *aggregate, const char *json)
{
	Datum		object = DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
	FuncExpr   *call;
	Const	   *result;

	call = makeFuncExpr(F_JSONB_POPULATE_RECORD, aggregate->state_type,
						list_make2(makeNullConst(aggregate->state_type, -1, InvalidOid),
								   makeConst(JSONBOID, -1, InvalidOid, -1,
											 object, false, false)),
						InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	result = castNode(Const, evaluate_expr((Expr *) call, aggregate->state_type,
										   -1, InvalidOid));
	return result->constvalue;
}

/* The state before the first event; the definer's rights are in force. */
static void
read_initial(EsAggregate *aggregate, const char *text)
{
	Oid			input;
	Oid			ioparam;

	if (text == NULL && aggregate->row != NULL)
	{
		bool	   *nulls = palloc(aggregate->nfields * sizeof(bool));

		memset(nulls, true, aggregate->nfields * sizeof(bool));
		aggregate->initial =
			HeapTupleGetDatum(heap_form_tuple(aggregate->row,
											  palloc0(aggregate->nfields * sizeof(Datum)),
											  nulls));
		return;
	}
	if (text == NULL && aggregate->state_type == JSONBOID)
		text = "{}";
	aggregate->initial_null = text == NULL;
	if (text == NULL)
		return;
	if (aggregate->row != NULL && text[strspn(text, " \t\n\r")] == '{')
	{
		aggregate->initial = row_from_json(aggregate, text);
		return;
	}
	getTypeInputInfo(aggregate->state_type, &input, &ioparam);
	aggregate->initial = OidInputFunctionCall(input, unconstify(char *, text),
											  ioparam, -1);
}

/* What a scan of the evolvers collects. */
typedef struct EvolverTexts
{
	List	   *types;
	List	   *expressions;
} EvolverTexts;

static bool
visit_evolver(Relation rel, HeapTuple tuple, void *arg)
{
	EvolverTexts *texts = arg;

	texts->types = lappend(texts->types, EsRowText(rel, tuple, EVOLVER_TYPE));
	texts->expressions = lappend(texts->expressions,
								 EsRowText(rel, tuple, EVOLVER_EXPRESSION));
	return true;
}

static void
compile_evolver(EsAggregate *aggregate, char *event_type, const char *sql)
{
	EsEvolver  *evolver = &aggregate->evolvers[aggregate->nevolvers];

	evolver->event_type = event_type;
	evolver->event_type_len = strlen(event_type);
	evolver->hash = EsEventTypeHash(event_type, evolver->event_type_len);
	evolver->expression =
		EsDefinitionCompile(aggregate->context, sql, aggregate->scope,
							aggregate->state_type, &aggregate->definer,
							psprintf("event type \"%s\" in aggregate \"%s\"",
									 event_type, aggregate->name));
	aggregate->nevolvers++;
}

static void
compile_evolvers(EsAggregate *aggregate)
{
	EvolverTexts texts = {NIL, NIL};
	ListCell   *type;
	ListCell   *expression;

	EsCatalogScan(EsStoreGet()->evolver, EVOLVER_AGGREGATE, aggregate->name,
				  visit_evolver, &texts);
	aggregate->evolvers = palloc0((list_length(texts.types) + 1) * sizeof(EsEvolver));
	forboth(type, texts.types, expression, texts.expressions)
		compile_evolver(aggregate, lfirst(type), lfirst(expression));

	aggregate->hash_mask = 7;
	while ((int) aggregate->hash_mask < 2 * aggregate->nevolvers)
		aggregate->hash_mask = aggregate->hash_mask * 2 + 1;
	aggregate->by_hash = palloc0((aggregate->hash_mask + 1) * sizeof(EsEvolver *));
	for (int i = 0; i < aggregate->nevolvers; i++)
	{
		uint32		slot = aggregate->evolvers[i].hash & aggregate->hash_mask;

		while (aggregate->by_hash[slot] != NULL)
			slot = (slot + 1) & aggregate->hash_mask;
		aggregate->by_hash[slot] = &aggregate->evolvers[i];
	}
}

/* The planned trees live outside the aggregate's context. */
static void
release_expressions(void *arg)
{
	EsAggregate *aggregate = arg;

	for (int i = 0; i < aggregate->nevolvers; i++)
		if (aggregate->evolvers[i].expression != NULL)
			EsExpressionFree(aggregate->evolvers[i].expression);
}

/* Make everything in the aggregate's own context, which is current. */
static void
fill_aggregate(EsAggregate *aggregate)
{
	DefinitionRow row = {.aggregate = aggregate};
	EsRights	rights;

	EsCatalogScan(EsStoreGet()->aggregate, ES_AGGREGATE_NAME, aggregate->name,
				  visit_aggregate, &row);
	if (!row.found)
		EsReportNoAggregate(aggregate->name);
	check_references(aggregate);
	describe_state(aggregate);
	EsRightsEnter(&aggregate->definer, &rights);
	read_initial(aggregate, row.initial);
	compile_evolvers(aggregate);
	EsAggregateDigest(aggregate, row.initial);
	EsRightsLeave(&rights);
	aggregate->program_context =
		AllocSetContextCreate(aggregate->context, "eventstore fold programs",
							  ALLOCSET_SMALL_SIZES);
	aggregate->state_context =
		AllocSetContextCreate(aggregate->context, "eventstore fold state",
							  ALLOCSET_DEFAULT_SIZES);
}

/*
 * Read and compile a definition; 42704 if there is none.  The result belongs
 * to nobody yet: its context is a child of the current one.
 */
static EsAggregate *
compile_aggregate(const char *name)
{
	uint64		made_from = EsAggregateGeneration();
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore aggregate",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);
	EsAggregate *aggregate = palloc0(sizeof(EsAggregate));
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));

	aggregate->context = context;
	aggregate->name = pstrdup(name);
	aggregate->generation = made_from;
	callback->func = release_expressions;
	callback->arg = aggregate;
	MemoryContextRegisterResetCallback(context, callback);
	fill_aggregate(aggregate);
	MemoryContextSwitchTo(saved);
	return aggregate;
}

/* ----- the session's cache ----- */

static CacheEntry *
cache_entry(const char *name, HASHACTION action)
{
	if (cache == NULL)
	{
		HASHCTL		control = {.keysize = NAMEDATALEN,.entrysize = sizeof(CacheEntry)};

		cache = hash_create("eventstore aggregates", 16, &control,
							HASH_ELEM | HASH_STRINGS);
	}
	return hash_search(cache, name, action, NULL);
}

/*
 * Is a fold of this aggregate under way?  One that ended in an error belongs
 * to a subtransaction that is no more.
 */
static bool
is_in_use(const EsAggregate *aggregate)
{
	return aggregate->user != InvalidSubTransactionId &&
		aggregate->lxid == EsCurrentLxid() &&
		SubTransactionIsActive(aggregate->user);
}

/* Forget what was made for another transaction, or left by an error. */
static void
take_aggregate(EsAggregate *aggregate)
{
	if (aggregate->lxid != EsCurrentLxid() ||
		aggregate->user != InvalidSubTransactionId)
	{
		EsFoldForget(aggregate);
		aggregate->lxid = EsCurrentLxid();
	}
	aggregate->user = GetCurrentSubTransactionId();
}

/*
 * An aggregate to fold with, compiled; 42704 if there is none of the name.
 * Give it back with EsAggregateClose; after an error that is not needed.
 */
EsAggregate *
EsAggregateOpen(const char *name)
{
	CacheEntry *entry = cache_entry(name, HASH_FIND);
	EsAggregate *aggregate = entry == NULL ? NULL : entry->aggregate;

	if (aggregate != NULL && is_in_use(aggregate))
	{
		aggregate = compile_aggregate(name);
		aggregate->transient = true;
	}
	else if (aggregate == NULL || aggregate->generation != generation)
	{
		if (aggregate != NULL)
		{
			cache_entry(name, HASH_REMOVE);
			MemoryContextDelete(aggregate->context);
		}
		aggregate = compile_aggregate(name);
		MemoryContextSetParent(aggregate->context, CacheMemoryContext);
		cache_entry(aggregate->name, HASH_ENTER)->aggregate = aggregate;
	}
	take_aggregate(aggregate);
	return aggregate;
}

/* Keep an aggregate that was opened in a subtransaction that has ended. */
void
EsAggregateKeep(EsAggregate *aggregate)
{
	aggregate->user = GetCurrentSubTransactionId();
}

void
EsAggregateClose(EsAggregate *aggregate)
{
	aggregate->user = InvalidSubTransactionId;
	if (aggregate->transient)
		MemoryContextDelete(aggregate->context);
}

/* Does the definition compile, with all that depends on it? */
void
EsAggregateCheck(const char *name)
{
	EsAggregate *aggregate = EsAggregateOpen(name);

	if (check_dependents != NULL)
		check_dependents(aggregate);
	EsAggregateClose(aggregate);
}
