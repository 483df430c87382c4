/*
 * aggregate.c: definitions of aggregates, and their compiled form.
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
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "pgtime.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "aggregate.h"
#include "catalog.h"
#include "compat.h"
#include "fold.h"
#include "point.h"
#include "stream.h"

/* Columns of es_aggregate and es_evolver; the tables' definitions rule. */
enum
{
	AGG_NAME = 1, AGG_CATEGORY, AGG_INITIAL, AGG_TYPE, AGG_EVERY,
	AGG_INTERVAL, AGG_OWNER, AGG_PATH
};
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

/* Which aggregates there are for which categories. */
typedef struct DirectoryEntry
{
	char	   *name;
	char	   *category;
	int			category_len;
} DirectoryEntry;

typedef struct Directory
{
	MemoryContext context;
	uint64		generation;		/* 0: never filled */
	int			count;
	int			size;
	DirectoryEntry *entries;
} Directory;

static HTAB *cache = NULL;
static Directory directory;
static uint64 generation = 1;	/* of all definitions */
static Oid	definitions = InvalidOid;	/* es_aggregate, once it was read */
static EsDependentsCheck check_dependents = NULL;

PG_FUNCTION_INFO_V1(es_definition_change);
PG_FUNCTION_INFO_V1(es_create_aggregate);
PG_FUNCTION_INFO_V1(es_evolve);
PG_FUNCTION_INFO_V1(es_drop_aggregate);
PG_FUNCTION_INFO_V1(es_drop_evolver);

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

/* ----- the digest of a definition ----- */

static void
digest_string(pg_cryptohash_ctx *digest, const char *string)
{
	const char *bytes = string == NULL ? "" : string;
	uint8		isnull = string == NULL;

	if (pg_cryptohash_update(digest, &isnull, 1) < 0 ||
		pg_cryptohash_update(digest, (const uint8 *) bytes, strlen(bytes) + 1) < 0)
		elog(ERROR, "could not compute a digest");
}

/*
 * What a value of the type is made of, by names that survive a dump.  A
 * stored text of a composite value has no meaning for one with other columns.
 */
static void
digest_type(pg_cryptohash_ctx *digest, EsAggregate *aggregate, Oid type,
			int32 typmod)
{
	Oid			element = get_base_element_type(type);
	Oid			base = getBaseType(OidIsValid(element) ? element : type);
	TupleDesc	desc;

	digest_string(digest, format_type_extended(type, typmod,
											   FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	if (!type_is_rowtype(base) || base == RECORDOID)
		return;
	aggregate->relations = lappend_oid(aggregate->relations,
									   get_typ_typrelid(base));
	desc = lookup_rowtype_tupdesc_copy(base, -1);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		digest_string(digest, NameStr(att->attname));
		digest_type(digest, aggregate, att->atttypid, att->atttypmod);
	}
	digest_string(digest, NULL);
}

/* An expression and the users' functions that it calls. */
static void
digest_expression(pg_cryptohash_ctx *digest, EsAggregate *aggregate,
				  const EsExpression *expression)
{
	ListCell   *cell;

	digest_string(digest, expression->text.sql);
	foreach(cell, expression->functions)
	{
		Datum		oid = ObjectIdGetDatum(lfirst_oid(cell));

		aggregate->function_hashes =
			lappend_int(aggregate->function_hashes,
						(int) GetSysCacheHashValue1(PROCOID, oid));
		digest_string(digest,
					  TextDatumGetCString(DirectFunctionCall1(pg_get_functiondef, oid)));
	}
	if (!expression->is_immutable)
		aggregate->is_immutable = false;
}

/*
 * The first 16 bytes of the SHA-256 of all that determines the state.  The
 * definer's path is in force, so that names come out the same each time.
 */
static void
digest_definition(EsAggregate *aggregate, const char *initial)
{
	pg_cryptohash_ctx *digest = pg_cryptohash_create(PG_SHA256);
	uint8		sum[PG_SHA256_DIGEST_LENGTH];

	if (digest == NULL || pg_cryptohash_init(digest) < 0)
		elog(ERROR, "could not compute a digest");
	digest_string(digest, initial);
	digest_string(digest, aggregate->definer.search_path);
	digest_type(digest, aggregate, aggregate->state_type, -1);
	aggregate->is_immutable = true;
	for (int i = 0; i < aggregate->nevolvers; i++)
	{
		digest_string(digest, aggregate->evolvers[i].event_type);
		digest_expression(digest, aggregate, aggregate->evolvers[i].expression);
	}
	if (pg_cryptohash_final(digest, sum, sizeof(sum)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(digest);
	memcpy(aggregate->definition.data, sum, UUID_LEN);
}

/*
 * The digest for this session.  Where an expression reads a time or an
 * interval, the settings of the session enter into the state, so it shares
 * snapshots with those sessions only that have the same.
 */
pg_uuid_t
EsAggregateDefinition(const EsAggregate *aggregate)
{
	pg_uuid_t	definition = aggregate->definition;
	int			settings[] = {DateStyle, DateOrder, IntervalStyle, extra_float_digits};
	uint64		hash;
	const char *zone;

	if (aggregate->is_immutable)
		return definition;
	zone = pg_get_timezone_name(session_timezone);
	hash = hash_bytes_extended((const unsigned char *) settings, sizeof(settings),
							   hash_bytes((const unsigned char *) zone, strlen(zone)));
	for (size_t i = 0; i < sizeof(hash); i++)
		definition.data[i] ^= (unsigned char) (hash >> (8 * i));
	return definition;
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
	row->initial = EsRowText(rel, tuple, AGG_INITIAL);
	aggregate->state_type = DatumGetObjectId(heap_getattr(tuple, AGG_TYPE, desc, &isnull));
	aggregate->definer.role = DatumGetObjectId(heap_getattr(tuple, AGG_OWNER, desc, &isnull));
	aggregate->definer.search_path = EsRowText(rel, tuple, AGG_PATH);
	value = heap_getattr(tuple, AGG_EVERY, desc, &isnull);
	aggregate->snapshot_every = isnull ? 0 : DatumGetInt32(value);
	value = heap_getattr(tuple, AGG_INTERVAL, desc, &isnull);
	if (!isnull)
		aggregate->snapshot_interval = memcpy(palloc(sizeof(Interval)),
											  DatumGetIntervalP(value),
											  sizeof(Interval));
	return false;
}

static void
report_no_aggregate(const char *name)
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
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(aggregate->definer.role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role that owned aggregate \"%s\" does not exist any more",
						aggregate->name),
				 errhint("Drop the aggregate and create it again.")));
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
	MemoryContext scratch = AllocSetContextCreate(aggregate->context,
												  "eventstore parse trees",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(scratch);

	evolver->event_type = event_type;
	evolver->event_type_len = strlen(event_type);
	evolver->hash = EsEventTypeHash(event_type, evolver->event_type_len);
	evolver->expression = EsExpressionCompile(aggregate->context, sql,
											  aggregate->scope,
											  aggregate->state_type, -1);
	aggregate->nevolvers++;
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(scratch);
	if (contain_volatile_functions((Node *) EsExpressionPlanned(evolver->expression)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("the expression for event type \"%s\" uses a volatile function",
						event_type),
				 errdetail("The state of a stream must come out the same each time."),
				 errhint("Mark the function IMMUTABLE or STABLE if it is.")));
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

	EsCatalogScan(EsStoreGet()->aggregate, AGG_NAME, aggregate->name,
				  visit_aggregate, &row);
	if (!row.found)
		report_no_aggregate(aggregate->name);
	check_references(aggregate);
	describe_state(aggregate);
	EsRightsEnter(&aggregate->definer, &rights);
	read_initial(aggregate, row.initial);
	compile_evolvers(aggregate);
	digest_definition(aggregate, row.initial);
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
	uint64		made_from = generation;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore aggregate",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);
	EsAggregate *aggregate = palloc0(sizeof(EsAggregate));
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));

	definitions = EsStoreGet()->aggregate;
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

/* ----- which aggregate folds a stream ----- */

static bool
visit_directory(Relation rel, HeapTuple tuple, void *arg)
{
	DirectoryEntry *entry;

	if (directory.count == directory.size)
	{
		directory.size = directory.size == 0 ? 8 : directory.size * 2;
		directory.entries = directory.entries == NULL ?
			palloc(directory.size * sizeof(DirectoryEntry)) :
			repalloc(directory.entries, directory.size * sizeof(DirectoryEntry));
	}
	entry = &directory.entries[directory.count];
	entry->name = EsRowText(rel, tuple, AGG_NAME);
	entry->category = EsRowText(rel, tuple, AGG_CATEGORY);
	entry->category_len = strlen(entry->category);
	directory.count++;
	return true;
}

static void
fill_directory(void)
{
	uint64		made_from = generation;
	MemoryContext saved;

	if (directory.generation == generation)
		return;
	definitions = EsStoreGet()->aggregate;
	if (directory.context == NULL)
		directory.context = AllocSetContextCreate(CacheMemoryContext,
												  "eventstore aggregate directory",
												  ALLOCSET_SMALL_SIZES);
	directory.generation = 0;
	directory.count = directory.size = 0;
	directory.entries = NULL;
	MemoryContextReset(directory.context);
	saved = MemoryContextSwitchTo(directory.context);
	EsCatalogScan(EsStoreGet()->aggregate, AGG_NAME, NULL,
				  visit_directory, NULL);
	MemoryContextSwitchTo(saved);
	directory.generation = made_from;
}

/* Is there any aggregate in this database? */
bool
EsAggregatesExist(void)
{
	fill_directory();
	return directory.count > 0;
}

/*
 * The names of all aggregates whose category is the stream's; see
 * EsAggregateName for the one.
 */
List *
EsAggregatesOfStream(const text *stream_id)
{
	const char *data = VARDATA_ANY(stream_id);
	int			len = EsCategoryLength(data, VARSIZE_ANY_EXHDR(stream_id));
	List	   *names = NIL;

	fill_directory();
	for (int i = 0; i < directory.count; i++)
		if (directory.entries[i].category_len == len &&
			memcmp(directory.entries[i].category, data, len) == 0)
			names = lappend(names, pstrdup(directory.entries[i].name));
	return names;
}

/*
 * The aggregate to fold a stream with: the one named or, where the name is
 * NULL, the only one for the stream's category.  42704 where there is none,
 * 42725 where there are several.
 */
char *
EsAggregateName(const text *name, const text *stream_id)
{
	List	   *names;

	if (name != NULL)
		return text_to_cstring(name);
	names = EsAggregatesOfStream(stream_id);
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no aggregate for stream \"%s\"",
						text_to_cstring(stream_id)),
				 errhint("Create one for its category with es_create_aggregate(), or name one.")));
	if (list_length(names) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("there are several aggregates for stream \"%s\"",
						text_to_cstring(stream_id)),
				 errdetail("Two of them are \"%s\" and \"%s\".",
						   (char *) linitial(names), (char *) lsecond(names)),
				 errhint("Name the one that is meant.")));
	return linitial(names);
}

/* ----- the trigger on the definitions ----- */

static bool
visit_owner(Relation rel, HeapTuple tuple, void *arg)
{
	bool		isnull;

	*(Oid *) arg = DatumGetObjectId(heap_getattr(tuple, AGG_OWNER,
												 RelationGetDescr(rel), &isnull));
	return false;
}

static Oid
owner_of(const char *aggregate)
{
	Oid			owner = InvalidOid;

	EsCatalogScan(EsStoreGet()->aggregate, AGG_NAME, aggregate,
				  visit_owner, &owner);
	return owner;
}

bool
EsAggregateExists(const char *name)
{
	return OidIsValid(owner_of(name));
}

static void
check_owner(Oid owner, const char *aggregate)
{
	if (ES_BUG == 47 || superuser() ||
		(OidIsValid(owner) && has_privs_of_role(GetUserId(), owner)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of aggregate \"%s\"", aggregate)));
}

/* The row, before or after the change, must be in the changer's power. */
static void
check_definition_row(Relation rel, HeapTuple tuple, const char *column)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), column);
	char	   *aggregate = EsRowText(rel, tuple, attno);
	Oid			owner;

	if (aggregate == NULL)
		return;					/* NOT NULL will say so */
	if (RelationGetRelid(rel) == EsStoreGet()->aggregate)
		(void) visit_owner(rel, tuple, &owner);
	else
		owner = owner_of(aggregate);
	check_owner(owner, aggregate);
}

/*
 * Before a row of a table of definitions is written, and after a truncation.
 * The argument is the column that names the aggregate.
 */
Datum
es_definition_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	rel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on a table of definitions")));
	rel = trigger->tg_relation;
	CacheInvalidateRelcacheByRelid(EsStoreGet()->aggregate);
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return PointerGetDatum(NULL);
	if (!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		check_definition_row(rel, TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
							 trigger->tg_newtuple : trigger->tg_trigtuple,
							 trigger->tg_trigger->tgargs[0]);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		check_definition_row(rel, trigger->tg_trigtuple,
							 trigger->tg_trigger->tgargs[0]);
		return PointerGetDatum(trigger->tg_newtuple);
	}
	return PointerGetDatum(trigger->tg_trigtuple);
}

/* ----- SQL ----- */

/* The name of an aggregate that must exist and be the caller's. */
char *
EsOwnAggregateArgument(FunctionCallInfo fcinfo, int n, const char *argument)
{
	char	   *name;
	Oid			owner;

	EsRequireArgument(fcinfo, n, argument);
	name = text_to_cstring(PG_GETARG_TEXT_PP(n));
	owner = owner_of(name);
	if (!OidIsValid(owner))
		report_no_aggregate(name);
	check_owner(owner, name);
	return name;
}

/*
 * Does an aggregate of the name stand in the way of a new one?  42710 if it
 * is neither to be replaced nor to be left alone.
 */
static bool
aggregate_exists(const char *name, bool or_replace, bool if_not_exists)
{
	if (!OidIsValid(owner_of(name)))
		return false;
	if (or_replace)
		return true;
	if (!if_not_exists)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("aggregate \"%s\" already exists", name),
				 errhint("Use or_replace => true to replace it.")));
	ereport(NOTICE,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("aggregate \"%s\" already exists, skipping", name)));
	return true;
}

static void
check_state_type(Oid type)
{
	if (get_typtype(type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a state cannot be of type %s", format_type_be(type))));
}

/* Insert or update the row; the arguments are those of es_create_aggregate. */
static void
write_aggregate(FunctionCallInfo fcinfo, bool exists)
{
	static const char *const insert =
	"INSERT INTO %s.es_aggregate (name, category, initial_state, state_type,"
	" snapshot_every, snapshot_interval, owner, search_path)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
	static const char *const update =
	"UPDATE %s.es_aggregate SET category = $2, initial_state = $3,"
	" state_type = $4, snapshot_every = $5, snapshot_interval = $6"
	" WHERE name OPERATOR(pg_catalog.=) $1";
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, REGTYPEOID, INT4OID,
	INTERVALOID, REGROLEOID, TEXTOID};
	Datum		values[8];
	char		nulls[] = "        ";

	for (int i = 0; i < 6; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (PG_ARGISNULL(1))
	{
		values[1] = values[0];
		nulls[1] = ' ';
	}
	values[6] = ObjectIdGetDatum(GetUserId());
	values[7] = CStringGetTextDatum(EsCurrentSearchPath());
	EsCatalogWrite(exists ? update : insert, exists ? 6 : 8, types, values, nulls);
}

/*
 * es_create_aggregate(name text, category text, initial_state text,
 *					   state_type regtype, snapshot_every int,
 *					   snapshot_interval interval, or_replace boolean,
 *					   if_not_exists boolean) → void
 */
Datum
es_create_aggregate(PG_FUNCTION_ARGS)
{
	bool		or_replace = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);
	bool		if_not_exists = !PG_ARGISNULL(7) && PG_GETARG_BOOL(7);
	char	   *name;
	bool		exists;

	EsRequireArgument(fcinfo, 0, "name");
	EsRequireArgument(fcinfo, 3, "state_type");
	EsCheckName(PG_GETARG_TEXT_PP(0), ES_MAX_AGGREGATE, "aggregate name");
	if (!PG_ARGISNULL(1))
		EsCheckName(PG_GETARG_TEXT_PP(1), ES_MAX_STREAM_ID, "category");
	check_state_type(PG_GETARG_OID(3));
	if (!PG_ARGISNULL(4) && PG_GETARG_INT32(4) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "snapshot_every"),
				 errhint("Use NULL to take no snapshots by number.")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	exists = aggregate_exists(name, or_replace, if_not_exists);
	if (exists && !or_replace)
		PG_RETURN_VOID();
	write_aggregate(fcinfo, exists);
	EsAggregateCheck(name);
	PG_RETURN_VOID();
}

/*
 * es_evolve(aggregate text, event_type text, expression text) → void
 */
Datum
es_evolve(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];
	char	   *name = EsOwnAggregateArgument(fcinfo, 0, "aggregate");

	EsRequireArgument(fcinfo, 1, "event_type");
	EsRequireArgument(fcinfo, 2, "expression");
	EsCheckEventType(PG_GETARG_TEXT_PP(1));
	for (int i = 0; i < 3; i++)
		values[i] = PG_GETARG_DATUM(i);
	EsCatalogWrite("INSERT INTO %s.es_evolver (aggregate, event_type, expression)"
				   " VALUES ($1, $2, $3) ON CONFLICT (aggregate, event_type)"
				   " DO UPDATE SET expression = EXCLUDED.expression",
				   3, types, values, NULL);
	EsAggregateCheck(name);
	PG_RETURN_VOID();
}

/*
 * Delete a definition.  Where there is none: 42704, or a notice.
 */
void
EsDefinitionDrop(FunctionCallInfo fcinfo, const char *query, int nargs,
				 bool if_exists, const char *what)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2];

	for (int i = 0; i < nargs; i++)
		values[i] = PG_GETARG_DATUM(i);
	if (EsCatalogWrite(query, nargs, types, values, NULL) > 0)
		return;
	ereport(if_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg(if_exists ? "%s does not exist, skipping" : "%s does not exist",
					what)));
}

/*
 * es_drop_aggregate(name text, if_exists boolean) → void
 */
Datum
es_drop_aggregate(PG_FUNCTION_ARGS)
{
	char	   *name;
	Oid			owner;

	EsRequireArgument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	owner = owner_of(name);
	if (OidIsValid(owner))
		check_owner(owner, name);
	EsDefinitionDrop(fcinfo, "DELETE FROM %s.es_aggregate"
					 " WHERE name OPERATOR(pg_catalog.=) $1", 1,
					 !PG_ARGISNULL(1) && PG_GETARG_BOOL(1),
					 psprintf("aggregate \"%s\"", name));
	PG_RETURN_VOID();
}

/*
 * es_drop_evolver(aggregate text, event_type text, if_exists boolean) → void
 */
Datum
es_drop_evolver(PG_FUNCTION_ARGS)
{
	char	   *name = EsOwnAggregateArgument(fcinfo, 0, "aggregate");

	EsRequireArgument(fcinfo, 1, "event_type");
	EsDefinitionDrop(fcinfo, "DELETE FROM %s.es_evolver"
					 " WHERE aggregate OPERATOR(pg_catalog.=) $1"
					 " AND event_type OPERATOR(pg_catalog.=) $2", 2,
					 !PG_ARGISNULL(2) && PG_GETARG_BOOL(2),
					 psprintf("evolver of aggregate \"%s\" for event type \"%s\"",
							  name, text_to_cstring(PG_GETARG_TEXT_PP(1))));
	PG_RETURN_VOID();
}
