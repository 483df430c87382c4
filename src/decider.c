/*
 * decider.c: from a state and a command to events or a rejection.
 *
 * Deciders are compiled with their aggregate, each when its command first
 * comes, and go with it.  The query is a kept plan.  The reason to reject is
 * a bare expression where it can be one, which costs next to nothing.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "nodes/bitmapset.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#include "catalog.h"
#include "decider.h"
#include "fold.h"
#include "stream.h"
#include "tag.h"

#define ES_MAX_COMMAND_TYPE 255 /* bytes */

/* Columns of es_decider; the table's definition rules. */
enum
{
	DECIDER_AGGREGATE = 1, DECIDER_COMMAND, DECIDER_QUERY, DECIDER_REJECT
};

/* Columns of a decision, the first two required. */
enum
{
	DECIDED_TYPE, DECIDED_DATA, DECIDED_METADATA, DECIDED_TAGS, DECIDED_STREAM,
	DECIDED_COLUMNS
};
static const Oid decided_types[] = {TEXTOID, JSONBOID, JSONBOID, TEXTARRAYOID, TEXTOID};
static const char *const decided_names[] = {"event_type", "data", "metadata", "tags", "stream_id"};

/* Which column of a decider's query is which; -1 for one that it has not. */
typedef struct DecidedColumns
{
	int			at[DECIDED_COLUMNS];
} DecidedColumns;

struct EsDecider
{
	char	   *command_type;
	char	   *query_text;
	char	   *reject_text;	/* NULL: never rejects by itself */
	EsStatement *query;			/* NULL: not compiled yet */
	bool		has_tags;		/* it may give tags */
	EsStatement *reject_query;	/* how to reject: one of these, or none */
	EsExpression *reject;
	ExprState  *reject_program; /* for one transaction */
	uint64		made_in;		/* aggregate->forgotten when it was made */
};

/* The deciders of an aggregate, in its memory context. */
struct EsDeciders
{
	EsScope    *scope;			/* state, command, stream_id */
	ParamListInfo params;
	int			state;			/* numbers of their parameters */
	int			command;
	int			stream_id;
	List	   *list;			/* of EsDecider */
	ExprContext *econtext;		/* for rejections, for one transaction */
	uint64		made_in;		/* aggregate->forgotten when it was made */
};

PG_FUNCTION_INFO_V1(es_decide);
PG_FUNCTION_INFO_V1(es_drop_decider);

/* ----- compile ----- */

/* Plans live outside the aggregate's context, so they are freed by hand. */
static void
release_deciders(void *arg)
{
	EsDeciders *deciders = arg;
	ListCell   *cell;

	foreach(cell, deciders->list)
	{
		EsDecider  *decider = lfirst(cell);

		if (decider->query != NULL)
			EsStatementFree(decider->query);
		if (decider->reject_query != NULL)
			EsStatementFree(decider->reject_query);
		if (decider->reject != NULL)
			EsExpressionFree(decider->reject);
	}
}

/* In the aggregate's context, which is current. */
static bool
visit_decider(Relation rel, HeapTuple tuple, void *arg)
{
	EsDeciders *deciders = arg;
	EsDecider  *decider = palloc0(sizeof(EsDecider));

	decider->command_type = EsRowText(rel, tuple, DECIDER_COMMAND);
	decider->query_text = EsRowText(rel, tuple, DECIDER_QUERY);
	decider->reject_text = EsRowText(rel, tuple, DECIDER_REJECT);
	deciders->list = lappend(deciders->list, decider);
	return true;
}

/* The aggregate's deciders, their texts at least. */
static EsDeciders *
deciders_of(EsAggregate *aggregate)
{
	MemoryContext saved;
	EsDeciders *deciders;
	MemoryContextCallback *callback;

	if (aggregate->deciders != NULL)
		return aggregate->deciders;
	saved = MemoryContextSwitchTo(aggregate->context);
	deciders = palloc0(sizeof(EsDeciders));
	deciders->scope = EsScopeCreate(aggregate->context);
	deciders->state = EsScopeAdd(deciders->scope, "state",
								 aggregate->state_type, -1);
	deciders->command = EsScopeAdd(deciders->scope, "command", JSONBOID, -1);
	deciders->stream_id = EsScopeAdd(deciders->scope, "stream_id", TEXTOID, -1);
	deciders->params = EsParamsCreate(deciders->scope);
	callback = palloc(sizeof(MemoryContextCallback));
	callback->func = release_deciders;
	callback->arg = deciders;
	MemoryContextRegisterResetCallback(aggregate->context, callback);
	EsCatalogScan(EsStoreGet()->decider, DECIDER_AGGREGATE, aggregate->name,
				  visit_decider, deciders);
	MemoryContextSwitchTo(saved);
	aggregate->deciders = deciders;
	return deciders;
}

/*
 * The columns that a compiled query gives; NULL unless it is one statement
 * that gives rows.
 */
static TupleDesc
query_columns(const EsStatement *query)
{
	List	   *sources = SPI_plan_get_plan_sources(query->plan);

	return list_length(sources) == 1 ?
		((CachedPlanSource *) linitial(sources))->resultDesc : NULL;
}

static void
report_columns(const char *message, bool has_streams)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("%s", message),
			 errdetail("A decider gives event_type text, data jsonb and, if wanted, metadata jsonb%s.",
					   has_streams ? ", tags text[] and stream_id text" : " and tags text[]")));
}

static void
check_column(const char *command_type, TupleDesc desc, int i, int column,
			 bool has_streams)
{
	Oid			type = getBaseType(TupleDescAttr(desc, i)->atttypid);

	if (type != decided_types[column] &&
		!(type == VARCHAROID && decided_types[column] == TEXTOID))
		report_columns(psprintf("column %d of the decider for command \"%s\" is of type %s but must be of type %s",
								i + 1, command_type, format_type_be(type),
								format_type_be(decided_types[column])),
					   has_streams);
}

/* What the column that is not required is: by its name, else by its place. */
static int
decided_column(TupleDesc desc, int i)
{
	for (int column = DECIDED_METADATA; column < DECIDED_COLUMNS; column++)
		if (i > DECIDED_DATA &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), decided_names[column]) == 0)
			return column;
	return i;
}

/* Find the columns of a decision; 22023 or 42804 where they are not right. */
static DecidedColumns
find_columns(const char *command_type, TupleDesc desc, bool has_streams)
{
	int			max = has_streams ? DECIDED_COLUMNS : DECIDED_STREAM;
	DecidedColumns columns;

	if (desc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the decider for command \"%s\" must be one query",
						command_type)));
	if (desc->natts <= DECIDED_DATA || desc->natts > max)
		report_columns(psprintf("the decider for command \"%s\" gives %d columns",
								command_type, desc->natts), has_streams);
	memset(columns.at, -1, sizeof(columns.at));
	for (int i = 0; i < desc->natts; i++)
	{
		int			column = decided_column(desc, i);

		if (column >= max || columns.at[column] >= 0)
			report_columns(psprintf("column %d of the decider for command \"%s\" is one too many",
									i + 1, command_type), has_streams);
		check_column(command_type, desc, i, column, has_streams);
		columns.at[column] = i;
	}
	return columns;
}

static void
check_reject_column(const char *command_type, TupleDesc desc)
{
	if (desc == NULL || desc->natts != 1 ||
		(getBaseType(TupleDescAttr(desc, 0)->atttypid) != TEXTOID &&
		 getBaseType(TupleDescAttr(desc, 0)->atttypid) != VARCHAROID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the rejection of command \"%s\" must be one query of one column of type text",
						command_type)));
}

/* Does the text begin like a query, as no expression does? */
static bool
is_query(const char *text)
{
	static const char *const words[] = {"select", "with", "values", "table"};

	while (*text == '(' || scanner_isspace(*text))
		text++;
	for (size_t i = 0; i < lengthof(words); i++)
	{
		size_t		len = strlen(words[i]);

		if (pg_strncasecmp(text, words[i], len) == 0 &&
			(text[len] == '\0' || text[len] == '(' || text[len] == '*' ||
			 scanner_isspace(text[len])))
			return true;
	}
	return false;
}

/* Inside SPI, with the definer's rights. */
static void
compile_texts(EsAggregate *aggregate, EsDecider *decider)
{
	EsDeciders *deciders = aggregate->deciders;

	if (decider->reject_text == NULL)
		;
	else if (is_query(decider->reject_text))
	{
		decider->reject_query = EsStatementCompile(aggregate->context,
												   decider->reject_text,
												   deciders->scope);
		check_reject_column(decider->command_type,
							query_columns(decider->reject_query));
	}
	else
		decider->reject = EsExpressionCompile(aggregate->context,
											  decider->reject_text,
											  deciders->scope, TEXTOID, -1);
	decider->query = EsStatementCompile(aggregate->context, decider->query_text,
										deciders->scope);
	decider->has_tags = find_columns(decider->command_type,
									 query_columns(decider->query),
									 aggregate->boundary != NULL).at[DECIDED_TAGS] >= 0;
}

/* What an error before left half compiled is compiled again. */
static void
compile_decider(EsAggregate *aggregate, EsDecider *decider)
{
	EsRights	rights;

	if (decider->query != NULL)
		return;
	if (decider->reject_query != NULL)
		EsStatementFree(decider->reject_query);
	if (decider->reject != NULL)
		EsExpressionFree(decider->reject);
	decider->reject_query = NULL;
	decider->reject = NULL;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	EsRightsEnter(&aggregate->definer, &rights);
	compile_texts(aggregate, decider);
	EsRightsLeave(&rights);
	SPI_finish();
}

static void
compile_deciders(EsAggregate *aggregate)
{
	ListCell   *cell;

	foreach(cell, deciders_of(aggregate)->list)
		compile_decider(aggregate, lfirst(cell));
}

void
EsDeciderInit(void)
{
	EsAggregateOnChange(compile_deciders);
}

/* The decider for a command, compiled; 42704 if there is none. */
EsDecider *
EsDeciderFind(EsAggregate *aggregate, const text *command_type)
{
	int			len = VARSIZE_ANY_EXHDR(command_type);
	ListCell   *cell;

	foreach(cell, deciders_of(aggregate)->list)
	{
		EsDecider  *decider = lfirst(cell);

		if (strlen(decider->command_type) != (size_t) len ||
			memcmp(decider->command_type, VARDATA_ANY(command_type), len) != 0)
			continue;
		compile_decider(aggregate, decider);
		return decider;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("aggregate \"%s\" has no decider for command \"%s\"",
					aggregate->name, text_to_cstring(command_type)),
			 errhint("Define one with es_decide().")));
	return NULL;
}

/* May a decision give its events tags, besides those of their types? */
bool
EsDeciderGivesTags(const EsDecider *decider)
{
	return decider->has_tags;
}

/* ----- decide ----- */

/* Hand over the state, as it stands after a fold that has not ended. */
static void
set_params(EsAggregate *aggregate, text *stream_id, Jsonb *command)
{
	EsDeciders *deciders = aggregate->deciders;
	int			nstate = 1 + (aggregate->row == NULL ? 0 : aggregate->nfields);

	EsFoldWholeState(aggregate);
	for (int i = 0; i < nstate; i++)
	{
		deciders->params->params[i].value = aggregate->params->params[i].value;
		deciders->params->params[i].isnull = aggregate->params->params[i].isnull;
	}
	EsParamSet(deciders->params, deciders->command, JsonbPGetDatum(command), false);
	EsParamSet(deciders->params, deciders->stream_id,
			   PointerGetDatum(stream_id), stream_id == NULL);
}

/* The expression's program and its context, once a transaction. */
static void
prepare_rejection(EsAggregate *aggregate, EsDecider *decider)
{
	EsDeciders *deciders = aggregate->deciders;
	MemoryContext saved = MemoryContextSwitchTo(aggregate->program_context);

	if (deciders->econtext == NULL || deciders->made_in != aggregate->forgotten)
	{
		deciders->econtext = CreateStandaloneExprContext();
		deciders->econtext->ecxt_param_list_info = deciders->params;
		deciders->made_in = aggregate->forgotten;
	}
	if (decider->reject_program == NULL || decider->made_in != aggregate->forgotten)
	{
		decider->reject_program =
			ExecInitExpr(EsExpressionPlanned(decider->reject), NULL);
		decider->made_in = aggregate->forgotten;
	}
	MemoryContextSwitchTo(saved);
}

static char *
reject_by_expression(EsAggregate *aggregate, EsDecider *decider)
{
	ExprContext *econtext;
	Datum		reason;
	bool		isnull;
	char	   *result;

	prepare_rejection(aggregate, decider);
	econtext = aggregate->deciders->econtext;
	reason = ExecEvalExprSwitchContext(decider->reject_program, econtext, &isnull);
	result = isnull ? NULL : TextDatumGetCString(reason);
	ReScanExprContext(econtext);
	return result;
}

/* Inside SPI; the result belongs to the context given. */
static char *
reject_by_query(EsDecider *decider, ParamListInfo params, MemoryContext context)
{
	uint64		nrows = EsStatementRun(decider->reject_query, params, false);
	bool		isnull;
	Datum		reason;

	if (nrows > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("the rejection of command \"%s\" gives more than one row",
						decider->command_type)));
	if (nrows == 0)
		return NULL;
	reason = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? NULL : MemoryContextStrdup(context, TextDatumGetCString(reason));
}

/* Row of a decision → event and its stream, in the current context. */
static void
take_event(const EsDecider *decider, const DecidedColumns *columns,
		   HeapTuple row, TupleDesc desc, EsNewEvent *event, text **stream_id)
{
	Datum		values[DECIDED_COLUMNS];
	bool		nulls[DECIDED_COLUMNS];

	for (int i = 0; i < DECIDED_COLUMNS; i++)
	{
		nulls[i] = true;
		if (columns->at[i] >= 0)
			values[i] = heap_getattr(row, columns->at[i] + 1, desc, &nulls[i]);
		if (nulls[i] && i <= DECIDED_DATA)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("the decider for command \"%s\" gives an event whose %s is null",
							decider->command_type, decided_names[i])));
	}
	memset(event, 0, sizeof(EsNewEvent));
	event->event_type = (text *) PG_DETOAST_DATUM_COPY(values[DECIDED_TYPE]);
	EsCheckEventType(event->event_type);
	event->data = DatumGetJsonbPCopy(values[DECIDED_DATA]);
	if (!nulls[DECIDED_METADATA])
		event->metadata = DatumGetJsonbPCopy(values[DECIDED_METADATA]);
	if (!nulls[DECIDED_TAGS])
		event->tags = EsCheckTags(DatumGetArrayTypePCopy(values[DECIDED_TAGS]));
	*stream_id = nulls[DECIDED_STREAM] ? NULL :
		(text *) PG_DETOAST_DATUM_COPY(values[DECIDED_STREAM]);
}

/* Inside SPI; the events belong to the context given. */
static void
run_query(EsAggregate *aggregate, EsDecider *decider, MemoryContext context,
		  EsDecision *decision)
{
	uint64		nrows = EsStatementRun(decider->query, aggregate->deciders->params, false);
	SPITupleTable *rows = SPI_tuptable;
	DecidedColumns columns = find_columns(decider->command_type, rows->tupdesc,
										  aggregate->boundary != NULL);
	MemoryContext saved;

	if (nrows > PG_INT32_MAX / sizeof(EsNewEvent))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the decider for command \"%s\" gives too many events",
						decider->command_type)));
	saved = MemoryContextSwitchTo(context);
	decision->nevents = (int) nrows;
	decision->events = palloc(Max(nrows, 1) * sizeof(EsNewEvent));
	decision->stream_ids = palloc(Max(nrows, 1) * sizeof(text *));
	for (uint64 i = 0; i < nrows; i++)
		take_event(decider, &columns, rows->vals[i], rows->tupdesc,
				   &decision->events[i], &decision->stream_ids[i]);
	MemoryContextSwitchTo(saved);
}

/*
 * Decide on a command.  The aggregate holds the state: call inside a fold,
 * in the definer's name, with the snapshot that is to count active.  The
 * stream may be NULL where the aggregate has a boundary.
 */
void
EsDeciderDecide(EsAggregate *aggregate, EsDecider *decider, text *stream_id,
				Jsonb *command, EsDecision *decision)
{
	ParamListInfo params = aggregate->deciders->params;
	MemoryContext context = CurrentMemoryContext;

	memset(decision, 0, sizeof(EsDecision));
	set_params(aggregate, stream_id, command);
	if (decider->reject != NULL)
		decision->rejection = reject_by_expression(aggregate, decider);
	if (decision->rejection != NULL)
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (decider->reject_query != NULL)
		decision->rejection = reject_by_query(decider, params, context);
	if (decision->rejection == NULL)
		run_query(aggregate, decider, context, decision);
	SPI_finish();
}

/* ----- SQL ----- */

/*
 * es_decide(aggregate text, command_type text, query text, reject text) → void
 */
Datum
es_decide(PG_FUNCTION_ARGS)
{
	char	   *name = EsOwnAggregateArgument(fcinfo, 0, "aggregate");

	EsRequireReadWrite("es_decide()");
	EsRequireArgument(fcinfo, 1, "command_type");
	EsRequireArgument(fcinfo, 2, "query");
	EsCheckName(PG_GETARG_TEXT_PP(1), ES_MAX_COMMAND_TYPE, "command type");
	EsAggregatePartWrite(fcinfo, name, EsStoreGet()->decider, 4);
	PG_RETURN_VOID();
}

/*
 * es_drop_decider(aggregate text, command_type text, if_exists boolean) → void
 */
Datum
es_drop_decider(PG_FUNCTION_ARGS)
{
	EsRequireReadWrite("es_drop_decider()");
	EsAggregatePartDrop(fcinfo, EsStoreGet()->decider, "command_type",
						"decider of aggregate \"%s\" for command \"%s\"");
	PG_RETURN_VOID();
}
