/*
 * definition.c: what the tables of definitions have in common.
 *
 * A row of such a table holds a text of SQL, the role that owns it and the
 * search_path it was written under, or belongs to an aggregate that has
 * these.  Whoever writes a row must have the privileges of its owner, so
 * nobody can have a text run with rights that he does not have; and sessions
 * that have compiled the rows of the table learn of a change by an
 * invalidation of its relation cache entry.
 *
 * The functions that define take the table's first columns as their first
 * arguments, so one routine writes them all: it asks the table for the names
 * and types of its columns, and its primary key for what is the same.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"
#include "definition.h"
#include "point.h"

PG_FUNCTION_INFO_V1(es_definition_change);

/* ----- arguments ----- */

/* 22004 where the argument is null. */
void
EsRequireArgument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

/* A number or place, the default where it is null; 22023 if it is negative. */
int64
EsNaturalArgument(FunctionCallInfo fcinfo, int n, const char *name,
				  int64 default_value)
{
	if (PG_ARGISNULL(n))
		return default_value;
	if (PG_GETARG_INT64(n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", name)));
	return PG_GETARG_INT64(n);
}

/* A boolean argument; NULL is false. */
bool
EsFlagArgument(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

/* The first arguments as the first columns of a row. */
void
EsDefinitionArguments(FunctionCallInfo fcinfo, Oid table, int ncolumns,
					  EsDefinitionRow *row)
{
	Assert(ncolumns <= ES_DEFINITION_COLUMNS);
	row->table = table;
	row->ncolumns = ncolumns;
	for (int i = 0; i < ncolumns; i++)
	{
		row->values[i] = PG_GETARG_DATUM(i);
		row->nulls[i] = PG_ARGISNULL(i);
	}
}

/* ----- write ----- */

/* Columns of a table of definitions, and the command that writes a row. */
typedef struct Writing
{
	TupleDesc	desc;
	int			nkeys;			/* the first of the columns */
	AttrNumber	columns[ES_DEFINITION_COLUMNS + 2];
	int			ncolumns;		/* of these */
	Oid			types[ES_DEFINITION_COLUMNS + 2];
	Datum		values[ES_DEFINITION_COLUMNS + 2];
	char		nulls[ES_DEFINITION_COLUMNS + 2];
	StringInfoData sql;
} Writing;

static const char *
column_name(const Writing *writing, AttrNumber attno)
{
	return quote_identifier(NameStr(TupleDescAttr(writing->desc, attno - 1)->attname));
}

static void
add_column(Writing *writing, AttrNumber attno, Datum value, bool isnull)
{
	int			n = writing->ncolumns++;

	writing->columns[n] = attno;
	writing->types[n] = TupleDescAttr(writing->desc, attno - 1)->atttypid;
	writing->values[n] = value;
	writing->nulls[n] = isnull ? 'n' : ' ';
}

/* The columns of the row, and its owner and path where the table has them. */
static void
begin_writing(Writing *writing, Relation rel, const EsDefinitionRow *row)
{
	AttrNumber	owner = get_attnum(row->table, "owner");
	Relation	key = index_open(EsPrimaryKey(rel), AccessShareLock);

	memset(writing, 0, sizeof(Writing));
	writing->desc = RelationGetDescr(rel);
	writing->nkeys = IndexRelationGetNumberOfKeyAttributes(key);
	index_close(key, AccessShareLock);
	for (int i = 0; i < row->ncolumns; i++)
		add_column(writing, i + 1, row->values[i], row->nulls[i]);
	if (owner == InvalidAttrNumber)
		return;
	add_column(writing, owner, ObjectIdGetDatum(GetUserId()), false);
	add_column(writing, get_attnum(row->table, "search_path"),
			   CStringGetTextDatum(EsCurrentSearchPath()), false);
}

static void
append_insert(Writing *writing, const char *table)
{
	StringInfo	sql = &writing->sql;

	appendStringInfo(sql, "INSERT INTO %%s.%s (", quote_identifier(table));
	for (int i = 0; i < writing->ncolumns; i++)
		appendStringInfo(sql, "%s%s", i == 0 ? "" : ", ",
						 column_name(writing, writing->columns[i]));
	appendStringInfoString(sql, ") VALUES (");
	for (int i = 0; i < writing->ncolumns; i++)
		appendStringInfo(sql, "%s$%d", i == 0 ? "" : ", ", i + 1);
	appendStringInfoChar(sql, ')');
}

/* What the rows that are in the way are told by. */
static void
append_conflict(Writing *writing)
{
	StringInfo	sql = &writing->sql;

	appendStringInfoString(sql, " ON CONFLICT (");
	for (int i = 0; i < writing->nkeys; i++)
		appendStringInfo(sql, "%s%s", i == 0 ? "" : ", ", column_name(writing, i + 1));
	appendStringInfoChar(sql, ')');
}

/* Have the columns from nkeys to last replaced. */
static void
append_update(Writing *writing, int last)
{
	appendStringInfoString(&writing->sql, " DO UPDATE SET ");
	for (int i = writing->nkeys; i < last; i++)
	{
		const char *name = column_name(writing, writing->columns[i]);

		appendStringInfo(&writing->sql, "%s%s = EXCLUDED.%s",
						 i == writing->nkeys ? "" : ", ", name, name);
	}
}

/*
 * ON CONFLICT cannot be used on a user catalog table: remove the row that is
 * to be replaced, while nobody else writes.
 */
static void
remove_replaced(Writing *writing, const char *table)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "LOCK TABLE ONLY %%s.%s IN SHARE ROW EXCLUSIVE MODE",
					 quote_identifier(table));
	EsCatalogWrite(sql.data, 0, NULL, NULL, NULL);
	resetStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %%s.%s WHERE ", quote_identifier(table));
	for (int i = 0; i < writing->nkeys; i++)
		appendStringInfo(&sql, "%s%s OPERATOR(pg_catalog.=) $%d", i == 0 ? "" : " AND ",
						 column_name(writing, i + 1), i + 1);
	EsCatalogWrite(sql.data, writing->nkeys, writing->types, writing->values,
				   writing->nulls);
}

/*
 * Write the row, with the caller's privileges and as its owner.  False if a
 * row with the same key was left as it is.
 */
bool
EsDefinitionWrite(const EsDefinitionRow *row, EsOnConflict conflict)
{
	Relation	rel = table_open(row->table, AccessShareLock);
	Writing		writing;
	uint64		processed;

	begin_writing(&writing, rel, row);
	initStringInfo(&writing.sql);
	append_insert(&writing, RelationGetRelationName(rel));
	if (RelationIsUsedAsCatalogTable(rel))
	{
		Assert(conflict == ES_CONFLICT_REPLACE);
		remove_replaced(&writing, RelationGetRelationName(rel));
	}
	else
		append_conflict(&writing);
	if (RelationIsUsedAsCatalogTable(rel))
		;						/* nothing is in the way */
	else if (conflict == ES_CONFLICT_NOTHING)
		appendStringInfoString(&writing.sql, " DO NOTHING");
	else
		append_update(&writing, conflict == ES_CONFLICT_REPLACE ?
					  writing.ncolumns : row->ncolumns);
	processed = EsCatalogWrite(writing.sql.data, writing.ncolumns, writing.types,
							   writing.values, writing.nulls);
	table_close(rel, NoLock);	/* kept to commit */
	return processed > 0;
}

/* 42710, or a notice, for what is there already. */
void
EsDefinitionReportExists(const char *what, bool if_not_exists, const char *hint)
{
	ereport(if_not_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 if_not_exists ? errmsg("%s already exists, skipping", what) :
			 errmsg("%s already exists", what),
			 if_not_exists ? 0 : errhint("%s", hint)));
}

/*
 * Delete the rows with this key; a column of it that is null is any.  Where
 * there is none: 42704, or a notice.
 */
void
EsDefinitionDelete(const EsDefinitionRow *key, bool if_exists, const char *what)
{
	Relation	rel = table_open(key->table, AccessShareLock);
	Writing		writing = {.desc = RelationGetDescr(rel)};
	uint64		processed;

	initStringInfo(&writing.sql);
	appendStringInfo(&writing.sql, "DELETE FROM %%s.%s",
					 quote_identifier(RelationGetRelationName(rel)));
	for (int i = 0; i < key->ncolumns; i++)
	{
		if (key->nulls[i])
			continue;
		add_column(&writing, i + 1, key->values[i], false);
		appendStringInfo(&writing.sql, "%s%s OPERATOR(pg_catalog.=) $%d",
						 writing.ncolumns == 1 ? " WHERE " : " AND ",
						 column_name(&writing, i + 1), writing.ncolumns);
	}
	processed = EsCatalogWrite(writing.sql.data, writing.ncolumns, writing.types,
							   writing.values, writing.nulls);
	table_close(rel, NoLock);	/* kept to commit */
	if (processed > 0)
		return;
	ereport(if_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 if_exists ? errmsg("%s does not exist, skipping", what) :
			 errmsg("%s does not exist", what)));
}

/* ----- compile ----- */

/* The owner and path of a row; allocated in the current memory context. */
EsDefiner
EsDefinerOfRow(Relation rel, HeapTuple tuple, AttrNumber owner,
			   AttrNumber search_path)
{
	EsDefiner	definer;
	bool		isnull;

	definer.role = DatumGetObjectId(heap_getattr(tuple, owner,
												 RelationGetDescr(rel), &isnull));
	definer.search_path = EsRowText(rel, tuple, search_path);
	return definer;
}

/* 42704 where the role is gone. */
void
EsDefinerCheck(const EsDefiner *definer, const char *what)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(definer->role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role that owned %s does not exist any more", what),
				 errhint("Drop the definition and create it again.")));
}

/* A scope with nothing but the event in it. */
EsScope *
EsEventScope(MemoryContext context)
{
	EsScope    *scope = EsScopeCreate(context);

	EsScopeAdd(scope, "event", get_rel_type_id(EsStoreGet()->event), -1);
	return scope;
}

static void
point_to_definition(void *what)
{
	errcontext("compiling the expression of %s", (const char *) what);
}

/*
 * Compile an expression in its definer's name.  42704 where that role is
 * gone, 42P17 for a volatile function.  "what" says whose expression it is.
 */
EsExpression *
EsDefinitionCompile(MemoryContext context, const char *sql,
					const EsScope *scope, Oid type, const EsDefiner *definer,
					const char *what)
{
	MemoryContext scratch;
	MemoryContext saved;
	EsExpression *expression;
	EsRights	rights;
	ErrorContextCallback callback;

	EsDefinerCheck(definer, what);
	callback.callback = point_to_definition;
	callback.arg = unconstify(char *, what);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	scratch = AllocSetContextCreate(CurrentMemoryContext,
									"eventstore parse trees",
									ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(scratch);
	EsRightsEnter(definer, &rights);
	expression = EsExpressionCompile(context, sql, scope, type, -1);
	EsRightsLeave(&rights);
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(scratch);
	error_context_stack = callback.previous;
	if (contain_volatile_functions((Node *) expression->cached->expr))
	{
		EsExpressionFree(expression);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("the expression of %s uses a volatile function", what),
				 errdetail("It must come out the same each time."),
				 errhint("Mark the function IMMUTABLE or STABLE if it is.")));
	}
	return expression;
}

/* ----- owners ----- */

static Oid
owner_in_row(Relation rel, HeapTuple tuple, AttrNumber owner)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, owner, RelationGetDescr(rel), &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

static bool
visit_owner(Relation rel, HeapTuple tuple, void *arg)
{
	*(Oid *) arg = owner_in_row(rel, tuple, get_attnum(RelationGetRelid(rel), "owner"));
	return false;
}

/* Who owns an aggregate; InvalidOid if there is none of the name. */
Oid
EsAggregateOwner(const char *aggregate)
{
	Oid			owner = InvalidOid;

	EsCatalogScan(EsStoreGet()->aggregate, 1, aggregate, visit_owner, &owner);
	return owner;
}

/* 42501 unless what is called by the name is in the current user's power. */
void
EsDefinitionCheckOwner(Oid owner, const char *what, const char *name)
{
	if (ES_BUG == 47 || superuser() ||
		(OidIsValid(owner) && has_privs_of_role(GetUserId(), owner)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of %s \"%s\"", what, name)));
}

/*
 * A row without an owner of its own belongs to the aggregate that its first
 * column names.
 */
static void
check_row_owner(Relation rel, HeapTuple tuple, AttrNumber owner, const char *what)
{
	char	   *name = EsRowText(rel, tuple, 1);

	if (name == NULL)
		return;					/* NOT NULL will say so */
	EsDefinitionCheckOwner(owner == InvalidAttrNumber ? EsAggregateOwner(name) :
						   owner_in_row(rel, tuple, owner), what, name);
}

/*
 * Before a row of a table of definitions is written, and after a truncation.
 * The argument is what the first column names.
 */
Datum
es_definition_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *what;
	AttrNumber	owner;
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on a table of definitions")));
	owner = get_attnum(RelationGetRelid(trigger->tg_relation), "owner");
	CacheInvalidateRelcacheByRelid(owner == InvalidAttrNumber ? EsStoreGet()->aggregate :
								   RelationGetRelid(trigger->tg_relation));
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return PointerGetDatum(NULL);
	what = trigger->tg_trigger->tgargs[0];
	row = trigger->tg_trigtuple;
	check_row_owner(trigger->tg_relation, row, owner, what);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		row = trigger->tg_newtuple;
		check_row_owner(trigger->tg_relation, row, owner, what);
	}
	return PointerGetDatum(row);
}
