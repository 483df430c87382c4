/*
 * track.c: es_track_table, which turns the changes of a table into events.
 *
 * An AFTER ROW trigger appends one event for each row that is inserted,
 * updated or deleted, to a stream named after the row's key.  Row triggers are
 * what PostgreSQL gives to every partition, to those that come later too, and
 * fires for COPY, MERGE and foreign keys' cascades; statement triggers would
 * miss what is written to a partition by its own name.  Two writers of one row
 * wait for each other at the row, so its stream has the changes in the order
 * in which they were made.
 *
 * All there is to know stands in the trigger's one argument, a JSON object
 * that names columns.  There is no table of tracked tables: dump, restore,
 * renaming and dropping the table need no care.
 *
 * RIGHTS: who writes the table need not be allowed to append, or he could make
 * up changes.  The append is made in the name of the table's owner, who must
 * be.  Nothing can be had by putting the trigger on a table of one's own: its
 * owner, oneself, is who appends then.
 *
 * VALUES are what to_jsonb makes of them, written alike whatever the session's
 * settings are, since a stream's name must not depend on DateStyle.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "append.h"
#include "catalog.h"
#include "compat.h"
#include "definition.h"
#include "metadata.h"
#include "stream.h"

#define TRACK_ROW "_es_track_row"	/* sorts before most users' triggers */
#define TRACK_TRUNCATE "_es_track_truncate"
#define TRACK_HINT "Call es_untrack_table, and es_track_table again."

/* What happened to a row, and how its event type ends. */
typedef enum Change
{
	ROW_INSERTED, ROW_UPDATED, ROW_DELETED
} Change;

#define NCHANGES 3

static const char *const change_names[NCHANGES] = {"inserted", "updated", "deleted"};

/* Kinds of settings that change how a value is written. */
#define LOOKS_DATE 0x01
#define LOOKS_INTERVAL 0x02
#define LOOKS_ZONE 0x04
#define LOOKS_FLOAT 0x08
#define LOOKS_BYTEA 0x10
#define LOOKS_OTHER 0x20		/* of types we know nothing about */
#define LOOKS_ANY 0x3F

/* What the trigger's argument says; also what es_track_table is asked for. */
typedef struct Settings
{
	char	   *category;
	List	   *key_columns;	/* names; NIL: the primary key */
	List	   *except_columns; /* names */
} Settings;

/* A column whose values go into events. */
typedef struct Column
{
	AttrNumber	attno;
	char	   *name;
	int			name_len;
	bool		by_value;
	int16		length;			/* of the type */
	Oid			type;			/* that a domain is made of */
	FmgrInfo	to_jsonb;		/* from the column's type */
} Column;

/* A column of the key. */
typedef struct KeyColumn
{
	AttrNumber	attno;
	char	   *name;
	FmgrInfo	output;
} KeyColumn;

/* A table as its trigger sees it; made once a statement. */
typedef struct Tracked
{
	char	   *table;			/* qualified name */
	Oid			owner;			/* in whose name events are appended */
	char	   *category;
	text	   *event_types[NCHANGES];
	Jsonb	   *metadata;
	int			ncolumns;
	Column	   *columns;
	int			nkeys;
	KeyColumn  *keys;
	int			looks;			/* settings that its values depend on */
} Tracked;

/* A row of it, taken apart. */
typedef struct Row
{
	Datum	   *values;
	bool	   *nulls;
	text	   *stream_id;
} Row;

PG_FUNCTION_INFO_V1(es_track_table);
PG_FUNCTION_INFO_V1(es_untrack_table);
PG_FUNCTION_INFO_V1(es_track_change);

/* ----- the trigger's argument ----- */

static JsonbValue
string_value(const char *string)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	return value;
}

static void
push_member(JsonbParseState **state, const char *key, const char *string)
{
	JsonbValue	value = string_value(key);

	pushJsonbValue(state, WJB_KEY, &value);
	value = string_value(string);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_names(JsonbParseState **state, const char *key, List *names)
{
	JsonbValue	value = string_value(key);
	ListCell   *lc;

	if (names == NIL)
		return;
	pushJsonbValue(state, WJB_KEY, &value);
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	foreach(lc, names)
	{
		value = string_value(lfirst(lc));
		pushJsonbValue(state, WJB_ELEM, &value);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static char *
settings_text(const Settings *settings)
{
	JsonbParseState *state = NULL;
	Jsonb	   *json;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_member(&state, "category", settings->category);
	push_names(&state, "key_columns", settings->key_columns);
	push_names(&state, "except_columns", settings->except_columns);
	json = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	return JsonbToCString(NULL, &json->root, VARSIZE(json));
}

static List *
names_of_json(JsonbContainer *object, const char *key)
{
	JsonbValue *array = getKeyJsonValueFromContainer(object, key, strlen(key), NULL);
	List	   *names = NIL;

	if (array == NULL || array->type != jbvBinary)
		return NIL;
	for (uint32 i = 0; i < JsonContainerSize(array->val.binary.data); i++)
	{
		JsonbValue *name = getIthJsonbValueFromContainer(array->val.binary.data, i);

		if (name != NULL && name->type == jbvString)
			names = lappend(names, pnstrdup(name->val.string.val,
											name->val.string.len));
	}
	return names;
}

/* The trigger's argument; an empty object where it is not the one we gave it. */
static Jsonb *
trigger_json(const Trigger *trigger)
{
	const char *text = trigger->tgnargs == 1 ? trigger->tgargs[0] : "{}";

	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

static Settings
settings_of_trigger(const Trigger *trigger)
{
	JsonbContainer *json = &trigger_json(trigger)->root;
	JsonbValue *category = NULL;
	Settings	settings = {0};

	if (JsonContainerIsObject(json))
		category = getKeyJsonValueFromContainer(json, "category", 8, NULL);
	if (category == NULL || category->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" was not made by es_track_table",
						trigger->tgname),
				 errhint(TRACK_HINT)));
	else
		settings.category = pnstrdup(category->val.string.val, category->val.string.len);
	settings.key_columns = names_of_json(json, "key_columns");
	settings.except_columns = names_of_json(json, "except_columns");
	return settings;
}

/* ----- columns ----- */

/* The column of that name; 42703 if there is none. */
static Form_pg_attribute
find_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && namestrcmp(&column->attname, name) == 0)
			return column;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s\" does not exist",
					name, RelationGetRelationName(rel)),
			 errdetail("Tracking changes of the table needs it."),
			 errhint(TRACK_HINT)));
}

static bool
name_is_in(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

/* Names of the primary key's columns; 55000 without one. */
static List *
primary_key_columns(Relation rel)
{
	Oid			index_oid = EsPrimaryKey(rel);
	List	   *names = NIL;
	Relation	index;

	if (!OidIsValid(index_oid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key",
						RelationGetRelationName(rel)),
				 errhint("Give it one, or say by which key_columns its rows are to be told apart.")));
	index = index_open(index_oid, AccessShareLock);
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
	{
		AttrNumber	attno = index->rd_index->indkey.values[i];

		names = lappend(names, pstrdup(NameStr(TupleDescAttr(RelationGetDescr(rel),
															 attno - 1)->attname)));
	}
	index_close(index, AccessShareLock);
	return names;
}

/*
 * The settings that decide how a value of the type is written: by to_jsonb,
 * which has dates and times in a form of its own, or by its output function.
 */
static int
looks_of_type(Oid type, bool as_json)
{
	switch (getBaseType(type))
	{
		case BOOLOID:
		case CHAROID:
		case NAMEOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
			return 0;
		case DATEOID:
		case TIMESTAMPOID:
			return as_json ? 0 : LOOKS_DATE;
		case TIMESTAMPTZOID:
			return as_json ? LOOKS_ZONE : LOOKS_DATE | LOOKS_ZONE;
		case INTERVALOID:
			return LOOKS_INTERVAL;
		case FLOAT4OID:
		case FLOAT8OID:
			return LOOKS_FLOAT;
		case BYTEAOID:
			return LOOKS_BYTEA;
	}
	return LOOKS_ANY;
}

/* to_jsonb learns from its call expression what it is given. */
static void
make_column(Column *column, Form_pg_attribute attribute)
{
	Const	   *input = makeNullConst(attribute->atttypid, attribute->atttypmod,
									  attribute->attcollation);

	column->attno = attribute->attnum;
	column->name = pstrdup(NameStr(attribute->attname));
	column->name_len = strlen(column->name);
	column->by_value = attribute->attbyval;
	column->length = attribute->attlen;
	column->type = getBaseType(attribute->atttypid);
	fmgr_info(F_TO_JSONB, &column->to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(input),
											 InvalidOid, attribute->attcollation,
											 COERCE_EXPLICIT_CALL),
					   &column->to_jsonb);
}

static void
add_columns(Tracked *tracked, Relation rel, const Settings *settings)
{
	TupleDesc	desc = RelationGetDescr(rel);

	tracked->columns = palloc0(desc->natts * sizeof(Column));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		/* a virtual generated column ('v') has no value of its own */
		if (attribute->attisdropped || attribute->attgenerated == 'v' ||
			name_is_in(settings->except_columns, NameStr(attribute->attname)))
			continue;
		make_column(&tracked->columns[tracked->ncolumns++], attribute);
		tracked->looks |= looks_of_type(attribute->atttypid, true);
	}
}

static void
add_keys(Tracked *tracked, Relation rel, const Settings *settings)
{
	List	   *names = settings->key_columns;
	ListCell   *lc;

	if (names == NIL)
		names = primary_key_columns(rel);
	tracked->keys = palloc0(list_length(names) * sizeof(KeyColumn));
	foreach(lc, names)
	{
		Form_pg_attribute attribute = find_column(rel, lfirst(lc));
		KeyColumn  *key = &tracked->keys[tracked->nkeys++];
		Oid			output;
		bool		is_varlena;

		key->attno = attribute->attnum;
		key->name = pstrdup(NameStr(attribute->attname));
		getTypeOutputInfo(attribute->atttypid, &output, &is_varlena);
		fmgr_info(output, &key->output);
		tracked->looks |= looks_of_type(attribute->atttypid, false);
	}
}

/* ----- a tracked table ----- */

/* The table that is tracked: of a partition, the ancestor it comes from. */
static Oid
tracked_ancestor(Relation rel, const Trigger *trigger)
{
	Oid			result = RelationGetRelid(rel);
	ListCell   *lc;

	if (!trigger->tgisclone)
		return result;
	foreach(lc, get_partition_ancestors(result))
	{
		if (!OidIsValid(get_trigger_oid(lfirst_oid(lc), trigger->tgname, true)))
			break;
		result = lfirst_oid(lc);
	}
	return result;
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/*
 * What every event of the statement says: the table, who changed it, and in
 * which transaction.
 */
static Jsonb *
make_metadata(const Tracked *tracked)
{
	JsonbParseState *state = NULL;
	FullTransactionId xid = GetTopFullTransactionId();

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_member(&state, "table", tracked->table);
	push_member(&state, "role", GetUserNameFromId(GetUserId(), false));
	push_member(&state, "session_role",
				GetUserNameFromId(GetSessionUserId(), false));
	push_member(&state, "transaction",
				psprintf(UINT64_FORMAT, U64FromFullTransactionId(xid)));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* In the current memory context. */
static Tracked *
make_tracked(Relation rel, const Trigger *trigger)
{
	Tracked    *tracked = palloc0(sizeof(Tracked));
	Settings	settings = settings_of_trigger(trigger);
	Oid			ancestor = tracked_ancestor(rel, trigger);
	Relation	owned = table_open(ancestor, AccessShareLock);

	tracked->owner = owned->rd_rel->relowner;
	table_close(owned, AccessShareLock);
	tracked->table = qualified_name(ancestor);
	tracked->category = settings.category;
	for (int i = 0; i < NCHANGES; i++)
		tracked->event_types[i] = cstring_to_text(psprintf("%s.%s", settings.category,
														   change_names[i]));
	tracked->metadata = make_metadata(tracked);
	add_columns(tracked, rel, &settings);
	add_keys(tracked, rel, &settings);
	return tracked;
}

/* ----- rows ----- */

/*
 * Let values look alike whatever the session has set; what to hand to
 * look_as_set afterwards, or 0.
 */
static int
look_alike(const Tracked *tracked)
{
	static const struct
	{
		int			looks;
		const char *name;
		const char *value;
	}			settings[] = {
		{LOOKS_DATE, "DateStyle", "ISO, YMD"},
		{LOOKS_INTERVAL, "IntervalStyle", "postgres"},
		{LOOKS_ZONE, "TimeZone", "UTC"},
		{LOOKS_FLOAT, "extra_float_digits", "1"},
		{LOOKS_BYTEA, "bytea_output", "hex"},
		{LOOKS_OTHER, "lc_monetary", "C"},
		{LOOKS_OTHER, "xmlbinary", "base64"},
		{LOOKS_OTHER, "search_path", "pg_catalog, pg_temp"}
	};
	int			nest_level = 0;

	for (int i = 0; i < (int) lengthof(settings); i++)
	{
		if ((settings[i].looks & tracked->looks) == 0 ||
			strcmp(GetConfigOption(settings[i].name, false, false),
				   settings[i].value) == 0)
			continue;
		if (nest_level == 0)
			nest_level = NewGUCNestLevel();
		(void) set_config_option(settings[i].name, settings[i].value, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	return nest_level;
}

static void
look_as_set(int nest_level)
{
	if (nest_level > 0)
		AtEOXact_GUC(true, nest_level);
}

/*
 * A value of the key as part of a stream's name.  What could be taken for
 * something else, and what no name may contain, is written as %XX.
 */
static void
append_key_value(StringInfo name, const char *value, bool composite)
{
	bool		is_utf8 = GetDatabaseEncoding() == PG_UTF8;

	for (const unsigned char *c = (const unsigned char *) value; *c != '\0'; c++)
	{
		/* U+0080 to U+009F are control characters as well */
		if (is_utf8 && c[0] == 0xC2 && c[1] < 0xA0)
		{
			appendStringInfo(name, "%%%02X%%%02X", c[0], c[1]);
			c++;
		}
		else if (*c < 0x20 || *c == 0x7F || *c == '%' || (composite && *c == ','))
			appendStringInfo(name, "%%%02X", *c);
		else
			appendStringInfoChar(name, *c);
	}
}

/* "category-key", with the values of a key of several columns set off by commas. */
static text *
stream_of_row(Tracked *tracked, const Row *row)
{
	StringInfoData name;
	text	   *result;

	initStringInfo(&name);
	appendStringInfo(&name, "%s-", tracked->category);
	for (int i = 0; i < tracked->nkeys; i++)
	{
		KeyColumn  *key = &tracked->keys[i];

		if (row->nulls[key->attno - 1])
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column \"%s\" of tracked table %s must not be null",
							key->name, tracked->table),
					 errdetail("It is part of the name of the row's stream.")));
		if (i > 0)
			appendStringInfoChar(&name, ',');
		append_key_value(&name, OutputFunctionCall(&key->output,
												   row->values[key->attno - 1]),
						 tracked->nkeys > 1);
	}
	result = cstring_to_text_with_len(name.data, name.len);
	EsCheckStreamId(result);
	return result;
}

static Row
take_apart(Tracked *tracked, HeapTuple tuple, TupleDesc desc)
{
	Row			row;

	row.values = palloc(desc->natts * sizeof(Datum));
	row.nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(tuple, desc, row.values, row.nulls);
	row.stream_id = stream_of_row(tracked, &row);
	return row;
}

/* Are two large values the same one, so that there is no need to fetch them? */
static bool
same_external(const Column *column, Datum a, Datum b)
{
	if (column->length != -1 ||
		!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(a)) ||
		!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(b)))
		return false;
	return memcmp(DatumGetPointer(a), DatumGetPointer(b),
				  VARSIZE_EXTERNAL(DatumGetPointer(a))) == 0;
}

/* Does the column differ?  By what is stored: 1.0 is not 1.00. */
static bool
column_differs(const Column *column, const Row *a, const Row *b)
{
	int			i = column->attno - 1;

	if (a->nulls[i] || b->nulls[i])
		return a->nulls[i] != b->nulls[i];
	return !same_external(column, a->values[i], b->values[i]) &&
		!datum_image_eq(a->values[i], b->values[i], column->by_value, column->length);
}

static void
set_number(JsonbValue *value, Numeric number)
{
	value->type = jbvNumeric;
	value->val.numeric = number;
}

/*
 * What to_jsonb makes of the types that most columns have, without what it
 * has to find out each time.  False for other types.
 */
static bool
set_plain_value(JsonbValue *value, Oid type, Datum datum)
{
	text	   *string;

	switch (type)
	{
		case BOOLOID:
			value->type = jbvBool;
			value->val.boolean = DatumGetBool(datum);
			return true;
		case INT2OID:
			set_number(value, int64_to_numeric(DatumGetInt16(datum)));
			return true;
		case INT4OID:
			set_number(value, int64_to_numeric(DatumGetInt32(datum)));
			return true;
		case INT8OID:
			set_number(value, int64_to_numeric(DatumGetInt64(datum)));
			return true;
		case NUMERICOID:
			set_number(value, DatumGetNumeric(datum));
			/* JSON has no such numbers */
			return !numeric_is_nan(value->val.numeric) && !numeric_is_inf(value->val.numeric);
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			string = DatumGetTextPP(datum);
			value->type = jbvString;
			value->val.string.val = VARDATA_ANY(string);
			value->val.string.len = VARSIZE_ANY_EXHDR(string);
			return true;
	}
	return false;
}

static void
push_column(JsonbParseState **state, Column *column, const Row *row)
{
	int			i = column->attno - 1;
	JsonbValue	value = {.type = jbvString};
	Jsonb	   *json;

	value.val.string.val = column->name;
	value.val.string.len = column->name_len;
	pushJsonbValue(state, WJB_KEY, &value);
	value.type = jbvNull;
	if (!row->nulls[i] && !set_plain_value(&value, column->type, row->values[i]))
	{
		json = DatumGetJsonbP(FunctionCall1(&column->to_jsonb, row->values[i]));
		value.type = jbvBinary;
		value.val.binary.data = &json->root;
		value.val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* A row as a member of the object; where another is given, what differs. */
static void
push_row(JsonbParseState **state, const char *key, const Tracked *tracked,
		 const Row *row, const Row *other)
{
	JsonbValue	name = string_value(key);

	pushJsonbValue(state, WJB_KEY, &name);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < tracked->ncolumns; i++)
	{
		Column	   *column = &tracked->columns[i];

		if (other == NULL || column_differs(column, row, other))
			push_column(state, column, row);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static bool
rows_differ(const Tracked *tracked, const Row *a, const Row *b)
{
	for (int i = 0; i < tracked->ncolumns; i++)
	{
		if (column_differs(&tracked->columns[i], a, b))
			return true;
	}
	return false;
}

/* ----- events ----- */

/* One event to append. */
typedef struct Event
{
	Change		change;
	text	   *stream_id;
	Jsonb	   *data;
} Event;

/*
 * A row appeared or went: all of it.  Where its key was changed, "other" is
 * the stream where it was, or is from now on.
 */
static Event
whole_row_event(const Tracked *tracked, Change change, const Row *row,
				const text *other)
{
	Event		event = {change, row->stream_id};
	JsonbParseState *data = NULL;
	bool		is_new = change == ROW_INSERTED;

	pushJsonbValue(&data, WJB_BEGIN_OBJECT, NULL);
	push_row(&data, is_new ? "new" : "old", tracked, row, NULL);
	if (other != NULL)
		push_member(&data, is_new ? "moved_from" : "moved_to",
					text_to_cstring(other));
	event.data = JsonbValueToJsonb(pushJsonbValue(&data, WJB_END_OBJECT, NULL));
	return event;
}

/* All of the new row, and what was different before. */
static Event
update_event(const Tracked *tracked, const Row *old, const Row *new)
{
	Event		event = {ROW_UPDATED, new->stream_id};
	JsonbParseState *data = NULL;

	pushJsonbValue(&data, WJB_BEGIN_OBJECT, NULL);
	push_row(&data, "new", tracked, new, NULL);
	push_row(&data, "old", tracked, old, new);
	event.data = JsonbValueToJsonb(pushJsonbValue(&data, WJB_END_OBJECT, NULL));
	return event;
}

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* How many events a change makes: none where nothing is different. */
static int
events_of_change(Tracked *tracked, TupleDesc desc, HeapTuple old_tuple,
				 HeapTuple new_tuple, Event *events)
{
	Row			old = {0};
	Row			new = {0};

	if (old_tuple != NULL)
		old = take_apart(tracked, old_tuple, desc);
	if (new_tuple != NULL)
		new = take_apart(tracked, new_tuple, desc);
	if (old_tuple == NULL)
		events[0] = whole_row_event(tracked, ROW_INSERTED, &new, NULL);
	else if (new_tuple == NULL)
		events[0] = whole_row_event(tracked, ROW_DELETED, &old, NULL);
	else if (!same_text(old.stream_id, new.stream_id))
	{
		events[0] = whole_row_event(tracked, ROW_DELETED, &old, new.stream_id);
		events[1] = whole_row_event(tracked, ROW_INSERTED, &new, old.stream_id);
		return 2;
	}
	else if (rows_differ(tracked, &old, &new))
		events[0] = update_event(tracked, &old, &new);
	else
		return 0;
	return 1;
}

/* Whoever changed the row: it is the table's owner who appends. */
static void
append_event(const Tracked *tracked, const Event *event)
{
	EsNewEvent	new_event = {0};
	EsAppend	append = {.stream_id = event->stream_id,.events = &new_event,.nevents = 1};
	Oid			userid;
	int			sec_context;

	append.expected_version = ES_VERSION_ANY;
	new_event.event_type = tracked->event_types[event->change];
	new_event.data = event->data;
	new_event.metadata = EsMergeMetadata(tracked->metadata);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(tracked->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	EsAppendEvents(&append);
	SetUserIdAndSecContext(userid, sec_context);
}

static void
append_change(Tracked *tracked, TupleDesc desc, HeapTuple old, HeapTuple new)
{
	Event		events[2];
	int			nest_level = look_alike(tracked);
	int			nevents = events_of_change(tracked, desc, old, new, events);

	/* the append may run handlers, which see the session's settings */
	look_as_set(nest_level);
	for (int i = 0; i < nevents; i++)
		append_event(tracked, &events[i]);
}

/* ----- the trigger ----- */

static void
refuse_truncate(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot truncate table \"%s\", whose changes are tracked",
					RelationGetRelationName(rel)),
			 errdetail("Its rows would go without an event."),
			 errhint("Use DELETE, or call es_untrack_table first.")));
}

static void
context_callback(void *arg)
{
	errcontext("appending the change of a row of tracked table %s", (char *) arg);
}

static void
track_row(FunctionCallInfo fcinfo, TriggerData *trigger)
{
	Relation	rel = trigger->tg_relation;
	Tracked    *tracked = fcinfo->flinfo->fn_extra;
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	HeapTuple	row = trigger->tg_trigtuple;
	ErrorContextCallback callback;

	if (tracked == NULL)
	{
		MemoryContext saved = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		tracked = make_tracked(rel, trigger->tg_trigger);
		MemoryContextSwitchTo(saved);
		fcinfo->flinfo->fn_extra = tracked;
	}
	callback.callback = context_callback;
	callback.arg = tracked->table;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	append_change(tracked, RelationGetDescr(rel),
				  TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? NULL : row,
				  is_update ? trigger->tg_newtuple :
				  TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? row : NULL);
	error_context_stack = callback.previous;
}

/*
 * After a row of a tracked table was changed, and before it is truncated.
 */
Datum
es_track_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on a tracked table")));
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		refuse_truncate(trigger->tg_relation);
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be fired after a change for each row, or by truncate")));
	track_row(fcinfo, trigger);
	return PointerGetDatum(NULL);
}

/* ----- tracking a table ----- */

/* 42501 unless the caller owns the table; to be asked before it is locked. */
static void
require_owner(Oid relid)
{
	if (!EsOwnsRelation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/* 42809 unless it is a table whose rows are its own, and none of the store's. */
static void
require_trackable(Relation rel)
{
	Oid			extension = getExtensionOfObject(RelationRelationId,
												 RelationGetRelid(rel));

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel)),
				 errhint("Changes of ordinary and partitioned tables can be tracked.")));
	if (OidIsValid(extension) && extension == get_extension_oid("eventstore", true))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" belongs to the store",
						RelationGetRelationName(rel)),
				 errdetail("Changes of the store's own tables are not tracked.")));
}

/* 42501 unless the table's owner may append. */
static void
require_writer(Oid owner)
{
	const EsStore *store = EsStoreGet();

	if (pg_class_aclcheck(store->event, owner, ACL_INSERT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\", who owns the table, must not append events",
						GetUserNameFromId(owner, false)),
				 errdetail("Changes are appended in the name of the table's owner."),
				 errhint("Let the owner be a writer: SELECT es_grant('%s', 'writer').",
						 GetUserNameFromId(owner, false))));
}

/* 42602 and 42622 unless streams and event types can begin with it. */
static void
check_category(const char *category)
{
	EsCheckName(cstring_to_text(category),
				ES_MAX_EVENT_TYPE - strlen(".inserted"), "category");
	EsCheckEventType(cstring_to_text(psprintf("%s.inserted", category)));
	if (strchr(category, '-') != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("category \"%s\" contains a \"-\"", category),
				 errdetail("A stream's category is the part of its name before the first \"-\"."),
				 errhint("Give another one with the argument \"category\".")));
}

static void
check_key(Relation rel, List *names)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (!find_column(rel, lfirst(lc))->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of table \"%s\" may be null",
							(char *) lfirst(lc), RelationGetRelationName(rel)),
					 errdetail("Every row needs a key, which names its stream."),
					 errhint("Declare the column NOT NULL.")));
	}
}

static void
check_except_columns(Relation rel, const Settings *settings, List *key)
{
	ListCell   *lc;

	foreach(lc, settings->except_columns)
	{
		(void) find_column(rel, lfirst(lc));
		if (name_is_in(key, lfirst(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("key column \"%s\" cannot be left out of the events",
							(char *) lfirst(lc)),
					 errdetail("It is part of the name of the row's stream.")));
	}
}

/* The elements of a text[] argument; an element must neither be null nor come twice. */
static List *
names_argument(FunctionCallInfo fcinfo, int n, const char *argument)
{
	List	   *names = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(n))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		char	   *name;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not contain nulls", argument)));
		name = TextDatumGetCString(elements[i]);
		if (name_is_in(names, name))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("argument \"%s\" names column \"%s\" twice",
							argument, name)));
		names = lappend(names, name);
	}
	return names;
}

/* In the caller's name. */
static void
execute(const char *sql)
{
	SPI_connect();
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not execute \"%s\"", sql);
	SPI_finish();
}

static void
create_triggers(const char *table, const Settings *settings)
{
	const char *schema = EsSchemaName();

	execute(psprintf("CREATE TRIGGER " TRACK_ROW
					 " AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW"
					 " EXECUTE FUNCTION %s.zz_es_track_change(%s)", table, schema,
					 quote_literal_cstr(settings_text(settings))));
	execute(psprintf("CREATE TRIGGER " TRACK_TRUNCATE
					 " BEFORE TRUNCATE ON %s FOR EACH STATEMENT"
					 " EXECUTE FUNCTION %s.zz_es_track_change()", table, schema));
}

/* The trigger that makes events of a table's rows. */
static Trigger *
find_trigger(TriggerDesc *triggers)
{
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (strcmp(triggers->triggers[i].tgname, TRACK_ROW) == 0)
			return &triggers->triggers[i];
	}
	return NULL;
}

/* An event for each row of one table without partitions. */
static void
append_existing(Relation rel)
{
	/* a copy: the table's own may go while the catalogs are looked at */
	Tracked    *tracked = make_tracked(rel, find_trigger(CopyTriggerDesc(rel->trigdesc)));
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore tracked row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		should_free;

		CHECK_FOR_INTERRUPTS();
		append_change(tracked, RelationGetDescr(rel), NULL,
					  ExecFetchSlotHeapTuple(slot, false, &should_free));
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(context);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
}

/* Nobody can write meanwhile: the lock of the trigger's creation is kept. */
static void
append_all_existing(Oid relid)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, ShareRowExclusiveLock, NULL))
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION && find_trigger(rel->trigdesc) != NULL)
			append_existing(rel);
		table_close(rel, NoLock);
	}
}

/* Is it tracked already?  42710 unless that is all right. */
static bool
is_tracked(Relation rel, bool if_not_exists)
{
	if (find_trigger(rel->trigdesc) == NULL)
		return false;
	ereport(if_not_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("changes of table \"%s\" are tracked already%s",
					RelationGetRelationName(rel), if_not_exists ? ", skipping" : "")));
	return true;
}

static void
check_settings(Relation rel, const Settings *settings)
{
	List	   *key = settings->key_columns;

	if (key == NIL)
		key = primary_key_columns(rel);
	else
		check_key(rel, key);
	check_category(settings->category);
	check_except_columns(rel, settings, key);
}

/*
 * es_track_table(table_name regclass, category text, key_columns text[],
 *				  except_columns text[], include_existing boolean,
 *				  if_not_exists boolean)
 */
Datum
es_track_table(PG_FUNCTION_ARGS)
{
	Settings	settings = {0};
	Relation	rel;

	EsRequireReadWrite("es_track_table()");
	EsRequireArgument(fcinfo, 0, "table_name");
	EsRequireArgument(fcinfo, 4, "include_existing");
	EsRequireArgument(fcinfo, 5, "if_not_exists");
	require_owner(PG_GETARG_OID(0));
	rel = table_open(PG_GETARG_OID(0), ShareRowExclusiveLock);
	require_trackable(rel);
	require_writer(rel->rd_rel->relowner);
	if (!is_tracked(rel, PG_GETARG_BOOL(5)))
	{
		settings.category = PG_ARGISNULL(1) ? pstrdup(RelationGetRelationName(rel)) :
			text_to_cstring(PG_GETARG_TEXT_PP(1));
		settings.key_columns = names_argument(fcinfo, 2, "key_columns");
		settings.except_columns = names_argument(fcinfo, 3, "except_columns");
		check_settings(rel, &settings);
		create_triggers(qualified_name(RelationGetRelid(rel)), &settings);
		if (PG_GETARG_BOOL(4))
			append_all_existing(RelationGetRelid(rel));
	}
	table_close(rel, NoLock);	/* kept to commit */
	PG_RETURN_VOID();
}

/*
 * es_untrack_table(table_name regclass, if_exists boolean)
 */
Datum
es_untrack_table(PG_FUNCTION_ARGS)
{
	Relation	rel;
	char	   *table;
	bool		if_exists;
	bool		tracked;

	EsRequireReadWrite("es_untrack_table()");
	EsRequireArgument(fcinfo, 0, "table_name");
	EsRequireArgument(fcinfo, 1, "if_exists");
	if_exists = PG_GETARG_BOOL(1);
	require_owner(PG_GETARG_OID(0));
	rel = relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	tracked = find_trigger(rel->trigdesc) != NULL;
	if (!tracked)
		ereport(if_exists ? NOTICE : ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("changes of table \"%s\" are not tracked%s",
						RelationGetRelationName(rel), if_exists ? ", skipping" : "")));
	table = qualified_name(RelationGetRelid(rel));
	relation_close(rel, NoLock);	/* kept to commit */
	if (tracked)
	{
		execute(psprintf("DROP TRIGGER " TRACK_ROW " ON %s", table));
		execute(psprintf("DROP TRIGGER IF EXISTS " TRACK_TRUNCATE " ON %s", table));
	}
	PG_RETURN_VOID();
}
