/*
 * event_type.c: what is declared of event types, and its use at append.
 *
 * A session reads all declarations at once, when it first appends, and keeps
 * them until the relation cache reports a change; while there are none, an
 * append pays for looking at a flag.  Checks are compiled when they are first
 * needed, and their programs made for one transaction, like a query's.
 *
 * A check may call a function that appends.  While one runs, nothing that it
 * uses may go away: the declarations stay as they are, and an append inside
 * of it works with programs of its own.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/syscache.h"

#include "append.h"
#include "catalog.h"
#include "compat.h"
#include "definition.h"
#include "event_type.h"
#include "stream.h"
#include "tag.h"

/* Columns of es_event_type; the table's definition rules. */
enum
{
	TYPE_NAME = 1, TYPE_VERSION, TYPE_CHECK, TYPE_TAGS, TYPE_OWNER, TYPE_PATH
};

/* A piece of a tag template: fixed text, or the way to a value. */
typedef struct TemplatePart
{
	char	   *literal;		/* or NULL */
	List	   *path;			/* keys, outermost first */
} TemplatePart;

/* A version of an event type. */
typedef struct EventType
{
	char	   *name;
	int			name_len;
	uint32		hash;			/* of the name */
	int32		version;
	char	   *check_text;		/* NULL: none */
	List	   *templates;		/* of lists of TemplatePart */
	EsDefiner	definer;
	EsExpression *check;		/* NULL: none, or not compiled yet */
	ExprState  *program;		/* for one transaction; NULL: not yet */
	struct EventType *older;	/* the next older version, or NULL */
} EventType;

/* All that is declared. */
typedef struct EventTypes
{
	MemoryContext context;		/* of all this; NULL: never read */
	uint64		generation;		/* of the rows it was made from */
	List	   *all;			/* of EventType, by name and version */
	uint32		mask;			/* of the table below */
	EventType **by_hash;		/* newest versions, open addressing */
	EsScope    *scope;			/* event */
} EventTypes;

/* What checks need to run. */
typedef struct Checker
{
	MemoryContext context;		/* of all this */
	MemoryContext programs;		/* its child, for one transaction */
	ExprContext *econtext;
	ParamListInfo params;
	TupleTableSlot *slot;		/* the event as it is known so far */
} Checker;

static bool require_types = false;
static EventTypes types;
static uint64 generation = 1;
static Oid	declarations = InvalidOid;	/* es_event_type, once it was read */
static Oid	events = InvalidOid;	/* es_event, likewise */
static Checker checker;			/* context NULL: none yet */
static LocalTransactionId checker_lxid = InvalidLocalTransactionId;
static int	checking = 0;		/* checks that are running */

PG_FUNCTION_INFO_V1(es_create_event_type);
PG_FUNCTION_INFO_V1(es_drop_event_type);

/* ----- what makes the declarations stale ----- */

static void
on_relation_change(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == declarations || relid == events)
		generation++;
}

static void
on_role_change(Datum arg, int cacheid, uint32 hash)
{
	generation++;
}

void
EsEventTypeInit(void)
{
	DefineCustomBoolVariable("eventstore.require_types",
							 "Refuses events of types that are not declared.",
							 "For a database whose event types are all declared with es_create_event_type(): "
							 "a misspelt type is then an error.",
							 &require_types, false, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	EsOnRelationChange(on_relation_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, on_role_change, (Datum) 0);
}

/* ----- tag templates ----- */

static void
report_bad_template(const char *template)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid tag template \"%s\"", template),
			 errhint("Write a key of the data in braces, such as course:{courseId}, and {{ for a brace.")));
}

/* The keys of "a.b.c", each of which must have a name. */
static List *
parse_path(const char *start, const char *end, const char *template)
{
	List	   *path = NIL;

	for (;;)
	{
		const char *dot = memchr(start, '.', end - start);
		const char *stop = dot == NULL ? end : dot;

		if (stop == start)
			report_bad_template(template);
		path = lappend(path, pnstrdup(start, stop - start));
		if (dot == NULL)
			return path;
		start = dot + 1;
	}
}

static List *
add_part(List *parts, char *literal, List *path)
{
	TemplatePart *part = palloc(sizeof(TemplatePart));

	part->literal = literal;
	part->path = path;
	return lappend(parts, part);
}

/* The parts of a template; 22023 if it is none. */
static List *
parse_template(const char *template)
{
	List	   *parts = NIL;
	StringInfoData literal;

	initStringInfo(&literal);
	for (const char *c = template; *c != '\0'; c++)
	{
		const char *end;

		if (*c == '{' && c[1] != '{')
		{
			end = strchr(c, '}');
			if (end == NULL)
				report_bad_template(template);
			if (literal.len > 0)
				parts = add_part(parts, pstrdup(literal.data), NIL);
			resetStringInfo(&literal);
			parts = add_part(parts, NULL, parse_path(c + 1, end, template));
			c = end;
			continue;
		}
		if (*c == '{')
			c++;
		appendStringInfoChar(&literal, *c);
	}
	if (literal.len > 0)
		parts = add_part(parts, literal.data, NIL);
	if (parts == NIL)
		report_bad_template(template);
	return parts;
}

/* The text of a scalar; NULL for null and for what is no scalar. */
static char *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return numeric_normalize(value->val.numeric);	/* 1.50 is 1.5 */
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

/* The texts that a path leads to: none, one, or an array's elements. */
static List *
path_texts(Jsonb *data, List *path)
{
	JsonbContainer *container = &data->root;
	JsonbValue	value;
	List	   *texts = NIL;
	ListCell   *cell;
	char	   *text;

	foreach(cell, path)
	{
		char	   *key = lfirst(cell);

		if (container == NULL || !JsonContainerIsObject(container) ||
			getKeyJsonValueFromContainer(container, key, strlen(key), &value) == NULL)
			return NIL;
		container = value.type == jbvBinary ? value.val.binary.data : NULL;
	}
	if (container == NULL)
		return (text = scalar_text(&value)) == NULL ? NIL : list_make1(text);
	if (!JsonContainerIsArray(container))
		return NIL;
	for (uint32 i = 0; i < JsonContainerSize(container); i++)
		if ((text = scalar_text(getIthJsonbValueFromContainer(container, i))) != NULL)
			texts = lappend(texts, text);
	return texts;
}

/* Add to tags what the parts from the n-th on make of a beginning. */
static void
expand_template(ArrayBuildState **tags, Jsonb *data, List *parts, int n,
				const char *beginning)
{
	TemplatePart *part;
	ListCell   *cell;

	if (n == list_length(parts))
	{
		*tags = accumArrayResult(*tags, CStringGetTextDatum(beginning), false,
								 TEXTOID, CurrentMemoryContext);
		return;
	}
	part = list_nth(parts, n);
	foreach(cell, part->literal != NULL ? list_make1(part->literal) :
			path_texts(data, part->path))
		expand_template(tags, data, parts, n + 1,
						psprintf("%s%s", beginning, (char *) lfirst(cell)));
}

/* Give the event the tags that its type's templates make of its data. */
static void
add_tags(const EventType *type, EsNewEvent *event)
{
	ArrayBuildState *tags = NULL;
	ListCell   *cell;
	Datum	   *given;
	int			ngiven;

	foreach(cell, type->templates)
		expand_template(&tags, event->data, lfirst(cell), 0, "");
	if (tags == NULL)
		return;
	if (event->tags != NULL)
	{
		deconstruct_array(event->tags, TEXTOID, -1, false, TYPALIGN_INT,
						  &given, NULL, &ngiven);
		for (int i = 0; i < ngiven; i++)
			tags = accumArrayResult(tags, given[i], false, TEXTOID,
									CurrentMemoryContext);
	}
	event->tags = EsCheckTags(DatumGetArrayTypeP(makeArrayResult(tags, CurrentMemoryContext)));
}

/* ----- the session's declarations ----- */

static List *
parse_templates(ArrayType *templates)
{
	List	   *parsed = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(templates, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a tag template must not be null")));
		parsed = lappend(parsed, parse_template(TextDatumGetCString(elements[i])));
	}
	return parsed;
}

static bool
visit_type(Relation rel, HeapTuple tuple, void *arg)
{
	EventTypes *into = arg;
	EventType  *type = palloc0(sizeof(EventType));
	EventType  *before = into->all == NIL ? NULL : llast(into->all);
	bool		isnull;
	Datum		tags;

	type->name = EsRowText(rel, tuple, TYPE_NAME);
	type->name_len = strlen(type->name);
	type->hash = EsEventTypeHash(type->name, type->name_len);
	type->version = DatumGetInt32(heap_getattr(tuple, TYPE_VERSION,
											   RelationGetDescr(rel), &isnull));
	type->check_text = EsRowText(rel, tuple, TYPE_CHECK);
	type->definer = EsDefinerOfRow(rel, tuple, TYPE_OWNER, TYPE_PATH);
	tags = heap_getattr(tuple, TYPE_TAGS, RelationGetDescr(rel), &isnull);
	if (!isnull)
		type->templates = parse_templates(DatumGetArrayTypeP(tags));
	if (before != NULL && strcmp(before->name, type->name) == 0)
		type->older = before;
	into->all = lappend(into->all, type);
	return true;
}

static inline EventType *
find_newest(const char *name, int len)
{
	uint32		slot = EsEventTypeHash(name, len) & types.mask;
	EventType  *type;

	while ((type = types.by_hash[slot]) != NULL &&
		   (type->name_len != len || memcmp(type->name, name, len) != 0))
		slot = (slot + 1) & types.mask;
	return type;
}

/* Enter the types; a newer version takes the place of the one before it. */
static void
fill_hash(EventTypes *into)
{
	ListCell   *cell;

	into->mask = 7;
	while ((int) into->mask < 2 * list_length(into->all))
		into->mask = into->mask * 2 + 1;
	into->by_hash = palloc0((into->mask + 1) * sizeof(EventType *));
	foreach(cell, into->all)
	{
		EventType  *type = lfirst(cell);
		uint32		slot = type->hash & into->mask;

		while (into->by_hash[slot] != NULL && into->by_hash[slot] != type->older)
			slot = (slot + 1) & into->mask;
		into->by_hash[slot] = type;
	}
}

/* The planned trees live outside the declarations' context. */
static void
release_checks(void *arg)
{
	List	  **all = arg;
	ListCell   *cell;

	foreach(cell, *all)
		if (((EventType *) lfirst(cell))->check != NULL)
			EsExpressionFree(((EventType *) lfirst(cell))->check);
}

/* Forget programs without running any clean-up of theirs. */
static void
forget_programs(void)
{
	ListCell   *cell;

	foreach(cell, types.all)
		((EventType *) lfirst(cell))->program = NULL;
	if (checker.context != NULL)
		MemoryContextReset(checker.programs);
}

/* Read the declarations anew. */
static void
read_types(void)
{
	EventTypes	new = {.generation = generation};
	MemoryContextCallback *callback;
	MemoryContext saved;
	List	  **all;

	declarations = EsStoreGet()->event_type;
	events = EsStoreGet()->event;
	new.context = AllocSetContextCreate(CurrentMemoryContext,
										"eventstore event types",
										ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(new.context);
	EsCatalogScan(declarations, TYPE_NAME, NULL, visit_type, &new);
	fill_hash(&new);
	new.scope = EsEventScope(new.context);
	all = palloc(sizeof(List *));
	*all = new.all;
	callback = palloc(sizeof(MemoryContextCallback));
	callback->func = release_checks;
	callback->arg = all;
	MemoryContextRegisterResetCallback(new.context, callback);
	MemoryContextSwitchTo(saved);

	if (checker.context != NULL)
		MemoryContextDelete(checker.context);
	memset(&checker, 0, sizeof(Checker));
	if (types.context != NULL)
		MemoryContextDelete(types.context);
	MemoryContextSetParent(new.context, CacheMemoryContext);
	types = new;
}

/* Have the declarations that are committed by now; false if there are none. */
static bool
have_types(void)
{
	AcceptInvalidationMessages();
	if (unlikely(types.context == NULL ||
				 (types.generation != generation && checking == 0)))
		read_types();
	return types.all != NIL;
}

/* Is anything declared, so that EsEventTypesApply may add tags? */
bool
EsEventTypesDeclared(void)
{
	return have_types();
}

static void
report_unknown_version(const EventType *type, int32 version)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("event type \"%s\" has no version %d", type->name, version),
			 errdetail("The newest version is %d.", type->version)));
}

/*
 * The declaration that applies to an event, whose version is filled in where
 * it was not given; NULL for a type that is not declared.  42704 where it has
 * to be, 22023 for a version that is not.
 */
static EventType *
type_of(const text *name, int32 *version)
{
	EventType  *type = types.all == NIL ? NULL :
		find_newest(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	EventType  *newest = type;

	if (type == NULL)
	{
		if (require_types)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("event type \"%s\" is not declared",
							text_to_cstring(name)),
					 errdetail("\"eventstore.require_types\" is on."),
					 errhint("Declare it with es_create_event_type().")));
		if (*version == 0)
			*version = 1;
		return NULL;
	}
	if (*version == 0)
		*version = type->version;
	while (type != NULL && type->version != *version)
		type = type->older;
	if (type == NULL)
		report_unknown_version(newest, *version);
	return type;
}

/* ----- checks ----- */

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

static void
compile_check(EventType *type)
{
	const EsVariable *event = &types.scope->variables[0];
	EsExpression *check;
	int			param;

	check = EsDefinitionCompile(types.context, type->check_text, types.scope,
								BOOLOID, &type->definer,
								psprintf("event type \"%s\"", type->name));
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
	type->check = check;
}

static void
make_checker(Checker *made, MemoryContext parent)
{
	MemoryContext saved;

	made->context = AllocSetContextCreate(parent, "eventstore type checks",
										  ALLOCSET_SMALL_SIZES);
	made->programs = AllocSetContextCreate(made->context, "eventstore type programs",
										   ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(made->context);
	made->econtext = CreateStandaloneExprContext();
	made->params = EsParamsCreate(types.scope);
	made->econtext->ecxt_param_list_info = made->params;
	made->slot = MakeSingleTupleTableSlot(types.scope->variables[0].desc,
										  &TTSOpsVirtual);
	MemoryContextSwitchTo(saved);
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
report_violation(const EventType *type)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("event violates the check of its type \"%s\", version %d",
					type->name, type->version),
			 errdetail("The expression is: %s", type->check_text),
			 err_generic_string(PG_DIAG_SCHEMA_NAME,
								get_namespace_name(EsStoreGet()->schema)),
			 err_generic_string(PG_DIAG_TABLE_NAME, "es_event"),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME,
								psprintf("%s.%d", type->name, type->version))));
}

/* What the type's check runs with, made where it is not there yet. */
static ExprState *
ready_program(EventType *type, Checker *with, bool nested)
{
	MemoryContext saved;
	ExprState  *program;

	if (with->context == NULL)
		make_checker(with, nested ? CurrentMemoryContext : CacheMemoryContext);
	if (!nested && type->program != NULL)
		return type->program;
	saved = MemoryContextSwitchTo(with->programs);
	program = ExecInitExprWithParams(EsExpressionPlanned(type->check), with->params);
	MemoryContextSwitchTo(saved);
	if (!nested)
		type->program = program;
	return program;
}

/* Evaluate the check; the definer's rights are in force.  NULL passes. */
static bool
run_check(EventType *type, Checker *with, ExprState *program)
{
	bool		isnull;
	Datum		value;

	checking++;
	PG_TRY();
	{
		EsParamsSetSlot(with->params, &types.scope->variables[0],
						type->check->text.used, with->slot);
		value = ExecEvalExprSwitchContext(program, with->econtext, &isnull);
	}
	PG_CATCH();
	{
		checking--;
		checker_lxid = InvalidLocalTransactionId;	/* programs stopped midway */
		PG_RE_THROW();
	}
	PG_END_TRY();
	checking--;
	return isnull || DatumGetBool(value);
}

/* Check one event; 23514 if it must not be. */
static void
check_event(EventType *type, text *stream_id, const EsNewEvent *event)
{
	bool		nested = checking > 0;
	Checker		own = {0};
	Checker    *with = nested ? &own : &checker;
	ExprState  *program;
	EsRights	rights;
	bool		passes;

	if (type->check == NULL)
		compile_check(type);
	if (!nested && checker_lxid != EsCurrentLxid())
	{
		forget_programs();
		checker_lxid = EsCurrentLxid();
	}
	EsRightsEnter(&type->definer, &rights);
	program = ready_program(type, with, nested);
	fill_slot(with->slot, stream_id, event);
	passes = run_check(type, with, program);
	EsRightsLeave(&rights);
	ResetExprContext(with->econtext);
	if (nested)
		MemoryContextDelete(own.context);
	if (!passes)
		report_violation(type);
}

/*
 * What is declared, applied to events that are about to be appended: version
 * of the type and tags are filled in, and what must not be is 23514.
 */
void
EsEventTypesApply(EsAppend *append)
{
	(void) have_types();
	for (int i = 0; i < append->nevents; i++)
	{
		EsNewEvent *event = &append->events[i];
		EventType  *type = type_of(event->event_type, &event->type_version);

		if (type == NULL)
			continue;
		if (type->templates != NIL)
			add_tags(type, event);
		if (type->check_text != NULL)
			check_event(type, append->stream_id, event);
	}
}

static Datum
column(TupleTableSlot *slot, AttrNumber attno)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attno, &isnull);

	return isnull ? PointerGetDatum(NULL) : value;
}

/*
 * Check an event once more that triggers may have changed, against the
 * version of its type that it was given.
 */
void
EsEventTypeCheckSlot(TupleTableSlot *slot)
{
	EsNewEvent	event = {0};
	EventType  *type;

	if (!have_types() && !require_types)
		return;
	event.event_type = DatumGetTextPP(column(slot, ES_EVENT_EVENT_TYPE));
	event.type_version = DatumGetInt32(column(slot, ES_EVENT_TYPE_VERSION));
	type = type_of(event.event_type, &event.type_version);
	if (type == NULL || type->check_text == NULL)
		return;
	event.data = DatumGetJsonbP(column(slot, ES_EVENT_DATA));
	event.metadata = (Jsonb *) DatumGetPointer(column(slot, ES_EVENT_METADATA));
	event.tags = (ArrayType *) DatumGetPointer(column(slot, ES_EVENT_TAGS));
	check_event(type, DatumGetTextPP(column(slot, ES_EVENT_STREAM_ID)), &event);
}

/* ----- SQL ----- */

/* The declaration of exactly this version, or NULL. */
static EventType *
find_version(const char *name, int32 version)
{
	EventType  *type = have_types() ? find_newest(name, strlen(name)) : NULL;

	while (type != NULL && type->version != version)
		type = type->older;
	return type;
}

/* 42710, or a notice, where the version is declared already. */
static bool
is_declared(const char *name, int32 version, bool if_not_exists)
{
	if (find_version(name, version) == NULL)
		return false;
	ereport(if_not_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 if_not_exists ?
			 errmsg("version %d of event type \"%s\" already exists, skipping", version, name) :
			 errmsg("version %d of event type \"%s\" already exists", version, name),
			 if_not_exists ? 0 :
			 errhint("Give the change a new version, or drop this one with es_drop_event_type().")));
	return true;
}

/*
 * es_create_event_type(event_type text, version integer,
 *						check_expression text, tags text[],
 *						if_not_exists boolean) → void
 */
Datum
es_create_event_type(PG_FUNCTION_ARGS)
{
	Oid			argtypes[] = {TEXTOID, INT4OID, TEXTOID, TEXTARRAYOID, REGROLEOID, TEXTOID};
	Datum		values[6];
	char		nulls[] = "      ";
	char	   *name;
	EventType  *type;

	EsRequireArgument(fcinfo, 0, "event_type");
	EsRequireArgument(fcinfo, 1, "version");
	EsCheckEventType(PG_GETARG_TEXT_PP(0));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "version")));
	if (is_declared(name, PG_GETARG_INT32(1), !PG_ARGISNULL(4) && PG_GETARG_BOOL(4)))
		PG_RETURN_VOID();
	for (int i = 0; i < 4; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[4] = ObjectIdGetDatum(GetUserId());
	values[5] = CStringGetTextDatum(EsCurrentSearchPath());
	EsCatalogWrite("INSERT INTO %s.es_event_type (event_type, version,"
				   " check_expression, tags, owner, search_path)"
				   " VALUES ($1, $2, $3, $4, $5, $6)", 6, argtypes, values, nulls);
	type = find_version(name, PG_GETARG_INT32(1));
	if (type != NULL && type->check_text != NULL)
		compile_check(type);
	PG_RETURN_VOID();
}

/*
 * es_drop_event_type(event_type text, version integer, if_exists boolean)
 *		→ void
 */
Datum
es_drop_event_type(PG_FUNCTION_ARGS)
{
	Oid			argtypes[] = {TEXTOID, INT4OID};
	Datum		values[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	bool		if_exists = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	char	   *what;

	EsRequireArgument(fcinfo, 0, "event_type");
	what = psprintf("event type \"%s\"", text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!PG_ARGISNULL(1))
		what = psprintf("version %d of %s", PG_GETARG_INT32(1), what);
	if (EsCatalogWrite("DELETE FROM %s.es_event_type"
					   " WHERE event_type OPERATOR(pg_catalog.=) $1 AND"
					   " ($2 IS NULL OR version OPERATOR(pg_catalog.=) $2)",
					   2, argtypes, values, PG_ARGISNULL(1) ? " n" : NULL) > 0)
		PG_RETURN_VOID();
	ereport(if_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 if_exists ? errmsg("%s does not exist, skipping", what) :
			 errmsg("%s does not exist", what)));
	PG_RETURN_VOID();
}
