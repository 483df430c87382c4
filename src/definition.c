/*
 * definition.c: what the tables of definitions have in common.
 *
 * A row of such a table holds a text of SQL, the role that owns it and the
 * search_path it was written under.  Whoever writes a row must have the
 * privileges of its owner, so nobody can have a text run with rights that he
 * does not have; and sessions that have compiled the rows of the table learn
 * of a change by an invalidation of its relation cache entry.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "definition.h"

PG_FUNCTION_INFO_V1(es_owned_definition_change);

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

/* A scope with nothing but the event in it. */
EsScope *
EsEventScope(MemoryContext context)
{
	EsScope    *scope = EsScopeCreate(context);

	EsScopeAdd(scope, "event", get_rel_type_id(EsStoreGet()->event), -1);
	return scope;
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

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(definer->role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role that owned %s does not exist any more", what),
				 errhint("Drop the definition and create it again.")));
	scratch = AllocSetContextCreate(CurrentMemoryContext,
									"eventstore parse trees",
									ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(scratch);
	EsRightsEnter(definer, &rights);
	expression = EsExpressionCompile(context, sql, scope, type, -1);
	EsRightsLeave(&rights);
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(scratch);
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

/* 42501 unless the row is in the changer's power. */
static void
check_row_owner(Relation rel, HeapTuple tuple)
{
	bool		isnull;
	Datum		owner = heap_getattr(tuple, get_attnum(RelationGetRelid(rel), "owner"),
									 RelationGetDescr(rel), &isnull);

	if (isnull || superuser() ||	/* NOT NULL will say so */
		has_privs_of_role(GetUserId(), DatumGetObjectId(owner)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of the definition of \"%s\"",
					EsRowText(rel, tuple, 1))));
}

/*
 * Before a row of a table of definitions with an owner is written, and after
 * a truncation.
 */
Datum
es_owned_definition_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on a table of definitions")));
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return PointerGetDatum(NULL);
	row = trigger->tg_trigtuple;
	check_row_owner(trigger->tg_relation, row);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		row = trigger->tg_newtuple;
		check_row_owner(trigger->tg_relation, row);
	}
	return PointerGetDatum(row);
}
