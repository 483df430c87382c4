/*
 * aggregate_define.c: create, change and drop the definitions of aggregates.
 *
 * Who changes a row must have the privileges of the aggregate's owner, in
 * whose name its expressions run.  The trigger on the tables sees to it by
 * whatever way the change comes; here it is asked for first, so that the
 * answer does not depend on what would have changed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "aggregate.h"
#include "catalog.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_create_aggregate);
PG_FUNCTION_INFO_V1(es_evolve);
PG_FUNCTION_INFO_V1(es_drop_aggregate);
PG_FUNCTION_INFO_V1(es_drop_evolver);

bool
EsAggregateExists(const char *name)
{
	return OidIsValid(EsAggregateOwner(name));
}

/* The name of an aggregate that must exist and be the caller's. */
char *
EsOwnAggregateArgument(FunctionCallInfo fcinfo, int n, const char *argument)
{
	char	   *name;
	Oid			owner;

	EsRequireArgument(fcinfo, n, argument);
	name = text_to_cstring(PG_GETARG_TEXT_PP(n));
	owner = EsAggregateOwner(name);
	if (!OidIsValid(owner))
		EsReportNoAggregate(name);
	EsDefinitionCheckOwner(owner, "aggregate", name);
	return name;
}

/*
 * Define or replace a part of the caller's aggregate from the first arguments,
 * and see whether all of it still compiles.
 */
void
EsAggregatePartWrite(FunctionCallInfo fcinfo, const char *aggregate, Oid table,
					 int ncolumns)
{
	EsDefinitionRow row;

	EsDefinitionArguments(fcinfo, table, ncolumns, &row);
	(void) EsDefinitionWrite(&row, ES_CONFLICT_REPLACE);
	EsAggregateCheck(aggregate);
}

/*
 * Drop a part of an aggregate; the arguments are aggregate, key, if_exists.
 * "what" has a place for each of the first two.
 */
void
EsAggregatePartDrop(FunctionCallInfo fcinfo, Oid table, const char *argument,
					const char *what)
{
	char	   *name = EsOwnAggregateArgument(fcinfo, 0, "aggregate");
	EsDefinitionRow key;

	EsRequireArgument(fcinfo, 1, argument);
	EsDefinitionArguments(fcinfo, table, 2, &key);
	EsDefinitionDelete(&key, EsFlagArgument(fcinfo, 2),
					   psprintf(what, name, text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

static void
check_state_type(Oid type)
{
	if (get_typtype(type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a state cannot be of type %s", format_type_be(type))));
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
	bool		or_replace = EsFlagArgument(fcinfo, 7);
	EsDefinitionRow row;
	char	   *name;
	Oid			owner;

	EsRequireReadWrite("es_create_aggregate()");
	check_arguments(fcinfo);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	owner = EsAggregateOwner(name);
	if (or_replace && OidIsValid(owner))
		EsDefinitionCheckOwner(owner, "aggregate", name);
	EsDefinitionArguments(fcinfo, EsStoreGet()->aggregate, 7, &row);
	if (row.nulls[1])
	{
		row.values[1] = row.values[0];
		row.nulls[1] = false;
	}
	if (EsDefinitionWrite(&row, or_replace ? ES_CONFLICT_KEEP_OWNER : ES_CONFLICT_NOTHING))
		EsAggregateCheck(name);
	else
		EsDefinitionReportExists(psprintf("aggregate \"%s\"", name), EsFlagArgument(fcinfo, 8),
								 "Use or_replace => true to replace it.");
	PG_RETURN_VOID();
}

/*
 * es_evolve(aggregate text, event_type text, expression text) → void
 */
Datum
es_evolve(PG_FUNCTION_ARGS)
{
	char	   *name = EsOwnAggregateArgument(fcinfo, 0, "aggregate");

	EsRequireReadWrite("es_evolve()");
	EsRequireArgument(fcinfo, 1, "event_type");
	EsRequireArgument(fcinfo, 2, "expression");
	EsCheckEventType(PG_GETARG_TEXT_PP(1));
	EsAggregatePartWrite(fcinfo, name, EsStoreGet()->evolver, 3);
	PG_RETURN_VOID();
}

/*
 * es_drop_aggregate(name text, if_exists boolean) → void
 */
Datum
es_drop_aggregate(PG_FUNCTION_ARGS)
{
	EsDefinitionRow key;
	char	   *name;
	Oid			owner;

	EsRequireReadWrite("es_drop_aggregate()");
	EsRequireArgument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	owner = EsAggregateOwner(name);
	if (OidIsValid(owner))
		EsDefinitionCheckOwner(owner, "aggregate", name);
	EsDefinitionArguments(fcinfo, EsStoreGet()->aggregate, 1, &key);
	EsDefinitionDelete(&key, EsFlagArgument(fcinfo, 1), psprintf("aggregate \"%s\"", name));
	PG_RETURN_VOID();
}

/*
 * es_drop_evolver(aggregate text, event_type text, if_exists boolean) → void
 */
Datum
es_drop_evolver(PG_FUNCTION_ARGS)
{
	EsRequireReadWrite("es_drop_evolver()");
	EsAggregatePartDrop(fcinfo, EsStoreGet()->evolver, "event_type",
						"evolver of aggregate \"%s\" for event type \"%s\"");
	PG_RETURN_VOID();
}
