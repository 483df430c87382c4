/*
 * apply.c: run the handlers of one projection over events.
 *
 * A run enters the owner's rights and one SPI connection, then takes events
 * one by one, then, for handlers that run once a batch, all of them as the
 * relation new_events.  Inline running, batches, rebuilds and time travel
 * differ only in where the events come from.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"

#include "apply.h"

#define NEW_EVENTS "new_events"

/* Does the projection look at events of this stream at all? */
bool
EsProjectionCovers(const EsProjection *projection, TupleTableSlot *slot)
{
	bool		isnull;
	text	   *stream_id;
	int			len;

	if (projection->category == NULL)
		return true;
	stream_id = DatumGetTextPP(slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull));
	len = EsCategoryLength(VARDATA_ANY(stream_id), VARSIZE_ANY_EXHDR(stream_id));
	return len == (int) strlen(projection->category) &&
		memcmp(projection->category, VARDATA_ANY(stream_id), len) == 0;
}

static bool
handles_type(const EsHandler *handler, const text *event_type)
{
	return handler->event_type != NULL &&
		handler->event_type_len == (int) VARSIZE_ANY_EXHDR(event_type) &&
		memcmp(handler->event_type, VARDATA_ANY(event_type),
			   handler->event_type_len) == 0;
}

/* Has the projection a handler for this event, which is shown as of the type? */
bool
EsProjectionWants(const EsProjection *projection, TupleTableSlot *slot,
				  const text *event_type)
{
	if (!EsProjectionCovers(projection, slot))
		return false;
	if (projection->has_batch)
		return true;
	for (int i = 0; i < projection->nhandlers; i++)
		if (handles_type(&projection->handlers[i], event_type))
			return true;
	return false;
}

/* ----- compiling ----- */

/* Make the events known to SPI as new_events; NULL: to the parser only. */
static void
register_new_events(EphemeralNamedRelation relation, Oid event_relid,
					Tuplestorestate *events, int64 nevents)
{
	memset(relation, 0, sizeof(EphemeralNamedRelationData));
	relation->md.name = NEW_EVENTS;
	relation->md.reliddesc = event_relid;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = nevents;
	relation->reldata = events;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register relation \"%s\"", NEW_EVENTS);
}

/* What can never work in a handler is refused when it is defined. */
static void
check_statements(const EsStatement *statement)
{
	ListCell   *cell;

	foreach(cell, SPI_plan_get_plan_sources(statement->plan))
	{
		CachedPlanSource *source = lfirst(cell);
		Node	   *raw = source->raw_parse_tree == NULL ? NULL :
			source->raw_parse_tree->stmt;

		if (raw != NULL && IsA(raw, TransactionStmt))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a handler cannot control transactions"),
					 errdetail("It runs in the transaction of its events or of its batch.")));
	}
}

/*
 * Compile one text.  Inside SPI, with the owner's rights, and with
 * new_events registered if it is one that runs once a batch.
 */
static EsStatement *
compile(EsProjection *projection, const char *event_type, const char *sql)
{
	EsStatement *statement;

	statement = EsStatementCompile(projection->context, sql,
								   event_type == NULL ? projection->no_scope :
								   projection->scope);
	check_statements(statement);
	return statement;
}

/* The handler's statements, compiled at first use. */
static EsStatement *
statement_of(EsProjection *projection, EsHandler *handler)
{
	if (handler->statement == NULL)
		handler->statement = compile(projection, handler->event_type, handler->sql);
	return handler->statement;
}

/*
 * Compile a text that is to become a handler, and forget it.  Errors point
 * at the offending word.
 */
void
EsHandlerCheck(EsProjection *projection, const char *event_type, const char *sql)
{
	Relation	event = table_open(EsStoreGet()->event, AccessShareLock);
	EphemeralNamedRelationData relation;
	EsRun		run;

	EsRunBegin(&run, projection, event);
	if (event_type == NULL)
		register_new_events(&relation, run.event_relid, NULL, 0);
	EsStatementFree(compile(projection, event_type, sql));
	EsRunEnd(&run);
	table_close(event, AccessShareLock);
}

/* Compile all handlers now. */
void
EsProjectionCompile(EsProjection *projection, Relation event)
{
	EphemeralNamedRelationData relation;
	EsRun		run;

	EsRunBegin(&run, projection, event);
	register_new_events(&relation, run.event_relid, NULL, 0);
	for (int i = 0; i < projection->nhandlers; i++)
	{
		run.handler = projection->handlers[i].ordinal;
		(void) statement_of(projection, &projection->handlers[i]);
	}
	EsRunEnd(&run);
}

/* ----- running ----- */

static void
describe_run(void *arg)
{
	EsRun	   *run = arg;

	if (run->handler == 0)
		errcontext("projection \"%s\"", run->projection->name);
	else if (run->position == 0)
		errcontext("projection \"%s\", handler %d", run->projection->name,
				   run->handler);
	else
		errcontext("projection \"%s\", event type \"%s\", position " INT64_FORMAT,
				   run->projection->name, run->event_type, run->position);
}

/* In whose name the projection runs; 42704 where the role is gone. */
static EsDefiner
definer_of(const EsProjection *projection)
{
	EsDefiner	definer;

	definer.role = get_role_oid(projection->owner, true);
	definer.search_path = projection->search_path;
	if (!OidIsValid(definer.role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" of projection \"%s\" does not exist",
						projection->owner, projection->name),
				 errhint("Drop the projection, or create the role.")));
	return definer;
}

/*
 * Begin to run handlers: enter the owner's rights, who must still be allowed
 * to read events, and SPI.  An error on the way out needs no EsRunEnd: the
 * abort of the (sub)transaction undoes both.
 */
void
EsRunBegin(EsRun *run, EsProjection *projection, Relation event)
{
	EsDefiner	definer;

	run->projection = projection;
	run->event_relid = RelationGetRelid(event);
	run->position = 0;
	run->handler = 0;
	run->callback.callback = describe_run;
	run->callback.arg = run;
	run->callback.previous = error_context_stack;
	error_context_stack = &run->callback;

	definer = definer_of(projection);
	EsRightsEnter(&definer, &run->rights);
	EsCheckPrivilege(event, ACL_SELECT);
	SPI_connect();
	run->params = EsParamsCreate(projection->scope);
	run->context = AllocSetContextCreate(CurrentMemoryContext,
										 "eventstore handler",
										 ALLOCSET_DEFAULT_SIZES);
}

static void
note_event(EsRun *run, TupleTableSlot *slot, const text *event_type)
{
	bool		isnull;
	int			len = Min(VARSIZE_ANY_EXHDR(event_type), ES_MAX_EVENT_TYPE);

	run->position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
	memcpy(run->event_type, VARDATA_ANY(event_type), len);
	run->event_type[len] = '\0';
}

/* Run one handler; what it returns is of no interest. */
static void
run_statement(EsRun *run, EsHandler *handler, ParamListInfo params)
{
	EsStatementRun(handler->statement, params, false);
	if (SPI_tuptable != NULL)
		SPI_freetuptable(SPI_tuptable);
}

/* Run the handlers of the event's type. */
void
EsRunEvent(EsRun *run, TupleTableSlot *slot)
{
	EsProjection *projection = run->projection;
	const EsVariable *variable = &projection->scope->variables[0];
	MemoryContext saved = MemoryContextSwitchTo(run->context);
	bool		isnull;
	text	   *event_type = DatumGetTextPP(slot_getattr(slot, ES_EVENT_EVENT_TYPE,
														 &isnull));

	note_event(run, slot, event_type);
	for (int i = 0; i < projection->nhandlers; i++)
	{
		EsHandler  *handler = &projection->handlers[i];

		if (!handles_type(handler, event_type))
			continue;
		run->handler = handler->ordinal;
		EsParamsSetSlot(run->params, variable,
						statement_of(projection, handler)->text.used, slot);
		run_statement(run, handler, run->params);
	}
	run->handler = 0;
	MemoryContextSwitchTo(saved);
	MemoryContextReset(run->context);
}

/* Run the handlers that see a batch as a whole. */
void
EsRunBatch(EsRun *run, Tuplestorestate *events, int64 nevents)
{
	EsProjection *projection = run->projection;
	EphemeralNamedRelationData relation;

	if (!projection->has_batch || nevents == 0)
		return;
	run->position = 0;
	register_new_events(&relation, run->event_relid, events, nevents);
	for (int i = 0; i < projection->nhandlers; i++)
	{
		EsHandler  *handler = &projection->handlers[i];

		if (handler->event_type != NULL)
			continue;
		run->handler = handler->ordinal;
		(void) statement_of(projection, handler);
		run_statement(run, handler, NULL);
	}
	run->handler = 0;
	SPI_unregister_relation(NEW_EVENTS);
}

/* End the run: back to the caller's rights. */
void
EsRunEnd(EsRun *run)
{
	SPI_finish();
	EsRightsLeave(&run->rights);
	error_context_stack = run->callback.previous;
}
