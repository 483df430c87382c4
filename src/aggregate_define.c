/*
 * aggregate_define.c: create, change and drop the definitions of aggregates.
 *
 * Who changes a row must have the privileges of the aggregate's owner, in
 * whose name its expressions run; a trigger on the tables sees to it by
 * whatever way the change comes, and tells the sessions that use it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "aggregate.h"
#include "catalog.h"
#include "point.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_definition_change);
PG_FUNCTION_INFO_V1(es_create_aggregate);
PG_FUNCTION_INFO_V1(es_evolve);
PG_FUNCTION_INFO_V1(es_drop_aggregate);
PG_FUNCTION_INFO_V1(es_drop_evolver);

/* ----- the trigger on the definitions ----- */

static bool
visit_owner(Relation rel, HeapTuple tuple, void *arg)
{
	bool		isnull;

	*(Oid *) arg = DatumGetObjectId(heap_getattr(tuple, ES_AGGREGATE_OWNER,
												 RelationGetDescr(rel), &isnull));
	return false;
}

static Oid
owner_of(const char *aggregate)
{
	Oid			owner = InvalidOid;

	EsCatalogScan(EsStoreGet()->aggregate, ES_AGGREGATE_NAME, aggregate,
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
		EsReportNoAggregate(name);
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
	" snapshot_every, snapshot_interval, boundary, owner, search_path)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
	static const char *const update =
	"UPDATE %s.es_aggregate SET category = $2, initial_state = $3,"
	" state_type = $4, snapshot_every = $5, snapshot_interval = $6,"
	" boundary = $7 WHERE name OPERATOR(pg_catalog.=) $1";
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, REGTYPEOID, INT4OID,
	INTERVALOID, JSONBOID, REGROLEOID, TEXTOID};
	Datum		values[9];
	char		nulls[] = "         ";

	for (int i = 0; i < 7; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (PG_ARGISNULL(1))
	{
		values[1] = values[0];
		nulls[1] = ' ';
	}
	values[7] = ObjectIdGetDatum(GetUserId());
	values[8] = CStringGetTextDatum(EsCurrentSearchPath());
	EsCatalogWrite(exists ? update : insert, exists ? 7 : 9, types, values, nulls);
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	EsRequireArgument(fcinfo, 0, "name");
	EsRequireArgument(fcinfo, 3, "state_type");
	EsCheckName(PG_GETARG_TEXT_PP(0), ES_MAX_AGGREGATE, "aggregate name");
	if (!PG_ARGISNULL(1))
		EsCheckName(PG_GETARG_TEXT_PP(1), ES_MAX_STREAM_ID, "category");
	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(6))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an aggregate has either a category or a boundary"),
				 errdetail("With a boundary it folds the events of no particular stream.")));
	check_state_type(PG_GETARG_OID(3));
	if (!PG_ARGISNULL(4) && PG_GETARG_INT32(4) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "snapshot_every"),
				 errhint("Use NULL to take no snapshots by number.")));
}

/*
 * es_create_aggregate(name text, category text, initial_state text,
 *					   state_type regtype, snapshot_every int,
 *					   snapshot_interval interval, boundary jsonb,
 *					   or_replace boolean, if_not_exists boolean) → void
 */
Datum
es_create_aggregate(PG_FUNCTION_ARGS)
{
	bool		or_replace = !PG_ARGISNULL(7) && PG_GETARG_BOOL(7);
	bool		if_not_exists = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8);
	char	   *name;
	bool		exists;

	check_arguments(fcinfo);
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
