/*
 * event_type.c: what is declared of event types, and its use at append.
 *
 * versioned.c keeps the declarations; while there are none, an append pays
 * for looking at a flag.  type_check.c checks, template.c makes tags.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"

#include "append.h"
#include "catalog.h"
#include "event_type.h"
#include "point.h"
#include "stream.h"
#include "tag.h"
#include "template.h"
#include "type_check.h"
#include "versioned.h"

/* Columns of es_event_type behind type and version; the table's definition rules. */
enum
{
	TYPE_CHECK = 3, TYPE_TAGS, TYPE_OWNER, TYPE_PATH
};

static void read_templates(Relation rel, HeapTuple tuple, EsVersioned *into);

static const EsVersionedKind kind = {
	.name = "event types",
	.size = sizeof(EsEventType),
	.table = offsetof(EsStore, event_type),
	.sql = TYPE_CHECK,
	.owner = TYPE_OWNER,
	.search_path = TYPE_PATH,
	.read_rest = read_templates
};
static EsVersionedCache cache = {.kind = &kind};
static bool give_tags = false;	/* some of them do */
static bool require_types = false;

PG_FUNCTION_INFO_V1(es_create_event_type);
PG_FUNCTION_INFO_V1(es_drop_event_type);

void
EsEventTypeInit(void)
{
	DefineCustomBoolVariable("eventstore.require_types",
							 "Refuses events of types that are not declared.",
							 "For a database whose event types are all declared with es_create_event_type(): "
							 "a misspelt type is then an error.",
							 &require_types, false, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	EsVersionedInit(&cache);
}

/* ----- declarations ----- */

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
		parsed = lappend(parsed, EsTemplateParse(TextDatumGetCString(elements[i])));
	}
	return parsed;
}

/* 42602 or 42622 for a new template that is no text to keep; those that are empty or NULL are found later. */
static void
check_templates(ArrayType *templates)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(templates, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
		if (!nulls[i] && VARSIZE_ANY_EXHDR(DatumGetTextPP(elements[i])) > 0)
			EsCheckName(DatumGetTextPP(elements[i]), ES_MAX_TEMPLATE, "tag template");
}

static void
read_templates(Relation rel, HeapTuple tuple, EsVersioned *into)
{
	bool		isnull;
	Datum		tags = heap_getattr(tuple, TYPE_TAGS, RelationGetDescr(rel), &isnull);

	if (!isnull)
		((EsEventType *) into)->templates = parse_templates(DatumGetArrayTypeP(tags));
}

/* Have the declarations that are committed by now; false if there are none. */
static bool
have_types(void)
{
	AcceptInvalidationMessages();
	if (unlikely(EsVersionedIsStale(&cache)) &&
		(cache.current.context == NULL || !EsTypeCheckIsRunning()))
	{
		ListCell   *cell;

		EsVersionedRead(&cache);
		EsTypeCheckForget();
		give_tags = false;
		foreach(cell, cache.current.all)
			give_tags |= ((EsEventType *) lfirst(cell))->templates != NIL;
	}
	return cache.current.all != NIL;
}

/* Is anything declared, so that EsEventTypesApply may add tags? */
bool
EsEventTypesDeclared(void)
{
	return have_types();
}

/* Does any declaration give tags? */
bool
EsEventTypesGiveTags(void)
{
	return have_types() && give_tags;
}

static void
report_undeclared(const text *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("event type \"%s\" is not declared", text_to_cstring(name)),
			 errdetail("\"eventstore.require_types\" is on."),
			 errhint("Declare it with es_create_event_type().")));
}

static void
report_unknown_version(const EsVersioned *newest, int32 version)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("event type \"%s\" has no version %d",
					text_to_cstring(newest->event_type), version),
			 errdetail("The newest version is %d.", newest->version)));
}

/*
 * The declaration that applies to an event, whose version is filled in where
 * it was not given; NULL for a type that is not declared.  42704 where it has
 * to be, 22023 for a version that is not.
 */
static EsEventType *
type_of(const text *name, int32 *version)
{
	EsVersioned *newest = cache.current.all == NIL ? NULL :
		EsVersionedNewest(&cache.current, name);
	EsVersioned *type = newest;

	if (newest == NULL && require_types)
		report_undeclared(name);
	if (*version == 0)
		*version = newest == NULL || ES_BUG == 73 ? 1 : newest->version;
	if (newest == NULL)
		return NULL;
	while (type != NULL && type->version != *version)
		type = type->older;
	if (type == NULL)
		report_unknown_version(newest, *version);
	return (EsEventType *) type;
}

/* ----- at append ----- */

static void
add_tag(ArrayBuildState **tags, Datum tag)
{
	*tags = accumArrayResult(*tags, tag, false, TEXTOID, CurrentMemoryContext);
}

/* Give the event the tags that its type's templates make of its data. */
static void
add_tags(const EsEventType *type, EsNewEvent *event)
{
	ArrayBuildState *tags = NULL;
	ListCell   *template;
	ListCell   *text;
	Datum	   *given;
	int			ngiven;
	bool		complete;		/* no matter: no value, no tag */

	foreach(template, type->templates)
		foreach(text, EsTemplateExpand(lfirst(template), event->data, &complete))
			add_tag(&tags, CStringGetTextDatum((char *) lfirst(text)));
	if (tags == NULL)
		return;
	if (event->tags != NULL)
	{
		deconstruct_array(event->tags, TEXTOID, -1, false, TYPALIGN_INT,
						  &given, NULL, &ngiven);
		for (int i = 0; i < ngiven; i++)
			add_tag(&tags, given[i]);
	}
	event->tags = EsCheckTags(DatumGetArrayTypeP(makeArrayResult(tags, CurrentMemoryContext)));
}

/* Fill in the tags of events, as far as their types give them; no checks. */
void
EsEventTypesAddTags(EsNewEvent *events, int nevents)
{
	(void) have_types();
	for (int i = 0; i < nevents; i++)
	{
		int32		version = 0;
		EsEventType *type = type_of(events[i].event_type, &version);

		if (type != NULL && type->templates != NIL)
			add_tags(type, &events[i]);
	}
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
		EsEventType *type = type_of(event->event_type, &event->type_version);

		if (type == NULL)
			continue;
		if (type->templates != NIL)
			add_tags(type, event);
		if (type->versioned.sql != NULL)
			EsTypeCheck(&cache.current, type, append->stream_id, event);
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
	EsEventType *type;

	if (!have_types() && !require_types)
		return;
	event.event_type = DatumGetTextPP(column(slot, ES_EVENT_EVENT_TYPE));
	event.type_version = DatumGetInt32(column(slot, ES_EVENT_TYPE_VERSION));
	type = type_of(event.event_type, &event.type_version);
	if (type == NULL || type->versioned.sql == NULL)
		return;
	event.data = DatumGetJsonbP(column(slot, ES_EVENT_DATA));
	event.metadata = (Jsonb *) DatumGetPointer(column(slot, ES_EVENT_METADATA));
	event.tags = (ArrayType *) DatumGetPointer(column(slot, ES_EVENT_TAGS));
	EsTypeCheck(&cache.current, type, DatumGetTextPP(column(slot, ES_EVENT_STREAM_ID)), &event);
}

/* ----- SQL ----- */

/* Does the check of a version that was just declared compile? */
static void
check_declaration(const text *event_type, int32 version)
{
	EsVersioned *type;

	(void) have_types();
	type = EsVersionedFind(&cache.current, event_type, version);
	if (type != NULL && type->sql != NULL)
		EsTypeCheckCompile(&cache.current, (EsEventType *) type);
}

/*
 * es_create_event_type(event_type text, version integer,
 *						check_expression text, tags text[],
 *						if_not_exists boolean) → void
 */
Datum
es_create_event_type(PG_FUNCTION_ARGS)
{
	EsDefinitionRow row;

	EsRequireReadWrite("es_create_event_type()");
	EsRequireArgument(fcinfo, 0, "event_type");
	EsRequireArgument(fcinfo, 1, "version");
	EsCheckEventType(PG_GETARG_TEXT_PP(0));
	if (PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "version")));
	if (!PG_ARGISNULL(3))
		check_templates(PG_GETARG_ARRAYTYPE_P(3));
	EsDefinitionArguments(fcinfo, EsStoreGet()->event_type, 4, &row);
	if (EsDefinitionWrite(&row, ES_CONFLICT_NOTHING))
		check_declaration(PG_GETARG_TEXT_PP(0), PG_GETARG_INT32(1));
	else
		EsDefinitionReportExists(psprintf("version %d of event type \"%s\"", PG_GETARG_INT32(1),
										  text_to_cstring(PG_GETARG_TEXT_PP(0))),
								 EsFlagArgument(fcinfo, 4),
								 "Give the change a new version, or drop this one with es_drop_event_type().");
	PG_RETURN_VOID();
}

/*
 * es_drop_event_type(event_type text, version integer, if_exists boolean)
 *		→ void
 */
Datum
es_drop_event_type(PG_FUNCTION_ARGS)
{
	EsDefinitionRow key;
	char	   *what;

	EsRequireReadWrite("es_drop_event_type()");
	EsRequireArgument(fcinfo, 0, "event_type");
	what = psprintf("event type \"%s\"", text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!PG_ARGISNULL(1))
		what = psprintf("version %d of %s", PG_GETARG_INT32(1), what);
	EsDefinitionArguments(fcinfo, EsStoreGet()->event_type, 2, &key);
	EsDefinitionDelete(&key, EsFlagArgument(fcinfo, 2), what);
	PG_RETURN_VOID();
}
