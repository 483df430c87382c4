/*
 * cloudevent.c: events in the form of CloudEvents 1.0, and back.
 *
 * One writer serves es_to_cloudevent and the output plugin.  Where an event's
 * columns go:
 *
 *	id				event_id			subject			stream_id
 *	source			the setting			type			event_type
 *	time			recorded_at			data			data
 *	sequence		position			streamversion	version
 *	typeversion		type_version		tags			tags, a JSON array as a string
 *	partitionkey	stream_id: who partitions by it keeps streams in order
 *
 * A sequence must sort as a string, so it has leading zeros.  streamversion is
 * a string because a CloudEvents integer has 32 bits.
 *
 * The metadata's members become extension attributes where CloudEvents can
 * express them: a name of lower-case letters and digits that is not taken, and
 * a value that is a string, a boolean or an integer of 32 bits.  traceparent,
 * tracestate and dataschema are such; correlation_id and causation_id lose
 * their underscore, as the Correlation extension has it.  What cannot be
 * expressed goes as JSON into the attribute "metadata".  The way back reads
 * all this, so an event that goes out and comes in again is the same.
 *
 * An event from elsewhere whose id is no UUID, or whose source is not ours,
 * keeps both in the member "cloudevent" of its metadata, and leaves under them
 * again.  Its event_id is then a UUID of version 5, made from source and id, so
 * that receiving it twice is a retry.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "common/cryptohash.h"
#include "common/sha1.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "cloudevent.h"
#include "compat.h"
#include "stream.h"

/* "name" of a size known at compile time */
#define NAME_IS(name, len, literal) \
	((len) == (int) sizeof(literal) - 1 && memcmp((name), (literal), (len)) == 0)

/* Digits of the largest position. */
#define ES_SEQUENCE_DIGITS 19

static char *source_setting;

PG_FUNCTION_INFO_V1(es_to_cloudevent);
PG_FUNCTION_INFO_V1(es_from_cloudevent);

/* ----- source ----- */

/* May the text stand as a URI reference, as far as its characters say? */
static bool
is_uri_reference(const char *text, int len)
{
	if (len == 0)
		return false;
	for (int i = 0; i < len; i++)
	{
		unsigned char c = text[i];

		if (c <= ' ' || c >= 0x7f || strchr("\"<>\\^`{|}", c) != NULL)
			return false;
		if (c == '%' && (i + 2 >= len || !isxdigit((unsigned char) text[i + 1]) ||
						 !isxdigit((unsigned char) text[i + 2])))
			return false;
	}
	return true;
}

static bool
check_source(char **value, void **extra, GucSource from)
{
	if (**value == '\0' || is_uri_reference(*value, strlen(*value)))
		return true;
	GUC_check_errdetail("It must be a URI.");
	return false;
}

/* 22023 unless it can be the source of CloudEvents. */
void
EsCheckSource(const char *source)
{
	if (!is_uri_reference(source, strlen(source)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid source \"%s\"", source),
				 errdetail("It must be a URI.")));
}

void
EsCloudEventInit(void)
{
	DefineCustomStringVariable("eventstore.source",
							   "URI that CloudEvents name as their source.",
							   "If empty, it is made from the name of the database.",
							   &source_setting, "", PGC_USERSET, 0,
							   check_source, NULL, NULL);
}

/*
 * The source of this store's events: the setting, or postgresql:///DATABASE.
 * Needs a transaction.
 */
char *
EsCloudEventSource(void)
{
	StringInfoData uri;
	char	   *database;

	if (source_setting[0] != '\0')
		return pstrdup(source_setting);
	database = get_database_name(MyDatabaseId);
	initStringInfo(&uri);
	appendStringInfoString(&uri, "postgresql:///");
	for (const char *c = database; c != NULL && *c != '\0'; c++)
	{
		if (isalnum((unsigned char) *c) && !IS_HIGHBIT_SET(*c))
			appendStringInfoChar(&uri, *c);
		else if (strchr("-._~", *c) != NULL)
			appendStringInfoChar(&uri, *c);
		else
			appendStringInfo(&uri, "%%%02X", (unsigned char) *c);
	}
	return uri.data;
}

/* ----- pieces of JSON ----- */

static void
append_string(StringInfo out, const char *string, int len)
{
	char	   *copy = pnstrdup(string, len);

	escape_json(out, copy);
	pfree(copy);
}

void
EsJsonAppendText(StringInfo out, const text *value)
{
	append_string(out, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

void
EsJsonAppendJsonb(StringInfo out, Datum value)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);

	(void) JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
}

void
EsJsonAppendUuid(StringInfo out, Datum value)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *bytes = DatumGetUUIDP(value)->data;
	char		buffer[2 * UUID_LEN + 6];
	char	   *at = buffer;

	*at++ = '"';
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = digits[bytes[i] >> 4];
		*at++ = digits[bytes[i] & 15];
	}
	*at++ = '"';
	appendBinaryStringInfo(out, buffer, at - buffer);
}

/* As RFC 3339 has it, in UTC. */
void
EsJsonAppendTime(StringInfo out, Datum value)
{
	char		buffer[MAXDATELEN + 1];
	int			utc = 0;
	int			len;

	(void) JsonEncodeDateTime(buffer, value, TIMESTAMPTZOID, &utc);
	len = strlen(buffer);
	appendStringInfoChar(out, '"');
	if (len > 6 && strcmp(buffer + len - 6, "+00:00") == 0)
	{
		appendBinaryStringInfo(out, buffer, len - 6);
		appendStringInfoChar(out, 'Z');
	}
	else
		appendBinaryStringInfo(out, buffer, len);
	appendStringInfoChar(out, '"');
}

void
EsJsonAppendTextArray(StringInfo out, Datum value)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	appendStringInfoChar(out, '[');
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		if (nulls[i])
			appendStringInfoString(out, "null");
		else
			EsJsonAppendText(out, DatumGetTextPP(elements[i]));
	}
	appendStringInfoChar(out, ']');
}

/* ----- an event's metadata as attributes ----- */

/* What of the metadata the writer needs to know besides. */
typedef struct Attributes
{
	bool		has_partition_key;
	bool		has_content_type;
	bool		may_be_base64;	/* the data is a string, and not of JSON */
	bool		is_base64;		/* and it is base64 */
	bool		is_foreign;		/* the member "cloudevent" is dealt with */
	const text *stream_id;		/* the partition key, if nothing else is */
	JsonbParseState *rest;		/* members that are no attributes; NULL: none */
} Attributes;

/* Attributes that columns stand for, or that have a meaning of their own. */
static bool
is_taken(const char *name, int len)
{
	static const char *const taken[] = {
		"specversion", "id", "source", "type", "subject", "time", "data",
		"sequence", "streamversion", "typeversion", "tags", "metadata",
		"correlationid", "causationid", "cloudevent"
	};

	for (int i = 0; i < (int) lengthof(taken); i++)
		if ((int) strlen(taken[i]) == len && memcmp(name, taken[i], len) == 0)
			return true;
	return false;
}

static bool
is_attribute_name(const char *name, int len)
{
	if (len == 0)
		return false;
	for (int i = 0; i < len; i++)
		if (!(name[i] >= 'a' && name[i] <= 'z') && !(name[i] >= '0' && name[i] <= '9'))
			return false;
	return true;
}

/* A string of CloudEvents holds no control characters. */
static bool
is_plain_string(const JsonbValue *value)
{
	if (value->type != jbvString)
		return false;
	for (int i = 0; i < value->val.string.len; i++)
	{
		unsigned char c = value->val.string.val[i];

		if (c < ' ' || c == 0x7f)
			return false;
		if (c == 0xc2 && (unsigned char) value->val.string.val[i + 1] < 0xa0)
			return false;		/* U+0080 to U+009F; never the last byte */
	}
	return true;
}

/* A number that is written as an integer of 32 bits. */
static bool
is_int32(const JsonbValue *value, int32 *number)
{
	char	   *digits;
	char	   *end;
	long		parsed;

	if (value->type != jbvNumeric)
		return false;
	digits = DatumGetCString(DirectFunctionCall1(numeric_out,
												 NumericGetDatum(value->val.numeric)));
	errno = 0;
	parsed = strtol(digits, &end, 10);
	if (errno != 0 || *end != '\0' || end == digits ||
		parsed < PG_INT32_MIN || parsed > PG_INT32_MAX)
		return false;
	*number = (int32) parsed;
	return true;
}

/* Of these, CloudEvents or one of its extensions say more than of any other. */
static bool
has_wrong_value(const char *name, int len, const JsonbValue *value)
{
	if (NAME_IS(name, len, "dataschema"))
		return value->type != jbvString ||
			!is_uri_reference(value->val.string.val, value->val.string.len);
	if (NAME_IS(name, len, "traceparent") || NAME_IS(name, len, "tracestate") ||
		NAME_IS(name, len, "partitionkey") || NAME_IS(name, len, "datacontenttype"))
		return value->type != jbvString || value->val.string.len == 0;
	return false;
}

/* What the way back would take for the default, and forget. */
static bool
says_nothing(const Attributes *attributes, const char *name, int len,
			 const JsonbValue *value)
{
	if (value->type != jbvString)
		return false;
	if (NAME_IS(name, len, "partitionkey"))
		return value->val.string.len == (int) VARSIZE_ANY_EXHDR(attributes->stream_id) &&
			memcmp(value->val.string.val, VARDATA_ANY(attributes->stream_id),
				   value->val.string.len) == 0;
	return NAME_IS(name, len, "datacontenttype") &&
		NAME_IS(value->val.string.val, value->val.string.len, "application/json");
}

/* The name that a member of the metadata goes by; NULL if by none. */
static const char *
attribute_name(const char *name, int len, const JsonbValue *value)
{
	int32		number;

	if (value->type == jbvString ? !is_plain_string(value) :
		value->type != jbvBool && !is_int32(value, &number))
		return NULL;
	if (NAME_IS(name, len, "correlation_id") && value->type == jbvString)
		return "correlationid";
	if (NAME_IS(name, len, "causation_id") && value->type == jbvString)
		return "causationid";
	if (!is_attribute_name(name, len) || is_taken(name, len) ||
		has_wrong_value(name, len, value))
		return NULL;
	return pnstrdup(name, len);
}

static void
append_scalar(StringInfo out, const JsonbValue *value)
{
	if (value->type == jbvString)
		append_string(out, value->val.string.val, value->val.string.len);
	else if (value->type == jbvBool)
		appendStringInfoString(out, value->val.boolean ? "true" : "false");
	else
		appendStringInfoString(out,
							   DatumGetCString(DirectFunctionCall1(numeric_out,
																   NumericGetDatum(value->val.numeric))));
}

static void
keep_for_rest(Attributes *attributes, JsonbValue *key, JsonbValue *value)
{
	if (attributes->rest == NULL)
		(void) pushJsonbValue(&attributes->rest, WJB_BEGIN_OBJECT, NULL);
	(void) pushJsonbValue(&attributes->rest, WJB_KEY, key);
	(void) pushJsonbValue(&attributes->rest, WJB_VALUE, value);
}

static void
append_member(StringInfo out, Attributes *attributes, JsonbValue *key,
			  JsonbValue *value)
{
	const char *name = key->val.string.val;
	int			len = key->val.string.len;
	const char *as;

	if (attributes->is_foreign && NAME_IS(name, len, "cloudevent"))
		return;
	if (attributes->may_be_base64 && NAME_IS(name, len, "data_base64") &&
		value->type == jbvBool && value->val.boolean)
	{
		attributes->is_base64 = true;
		return;
	}
	as = attribute_name(name, len, value);
	if (as == NULL || says_nothing(attributes, name, len, value))
	{
		keep_for_rest(attributes, key, value);
		return;
	}
	attributes->has_partition_key |= NAME_IS(name, len, "partitionkey");
	attributes->has_content_type |= NAME_IS(name, len, "datacontenttype");
	appendStringInfo(out, ",\"%s\":", as);
	append_scalar(out, value);
}

/* application/json, or anything that ends in +json, whatever its parameters */
static bool
is_json_type(const char *type, int len)
{
	const char *end = memchr(type, ';', len);

	if (end != NULL)
		len = end - type;
	while (len > 0 && type[len - 1] == ' ')
		len--;
	return (len == 16 && pg_strncasecmp(type, "application/json", 16) == 0) ||
		(len == 9 && pg_strncasecmp(type, "text/json", 9) == 0) ||
		(len > 5 && pg_strncasecmp(type + len - 5, "+json", 5) == 0);
}

static bool
is_string_not_of_json(Jsonb *data, Jsonb *metadata)
{
	JsonbValue	type;

	return JB_ROOT_IS_SCALAR(data) && JBE_ISSTRING(data->root.children[0]) &&
		getKeyJsonValueFromContainer(&metadata->root, "datacontenttype", 15, &type) != NULL &&
		type.type == jbvString && type.val.string.len > 0 &&
		!is_json_type(type.val.string.val, type.val.string.len);
}

/* The metadata's member "cloudevent", where it holds what we put there. */
static bool
find_identity(Jsonb *metadata, JsonbValue *id, JsonbValue *source)
{
	JsonbValue	member;
	JsonbValue *found;

	if (metadata == NULL || !JB_ROOT_IS_OBJECT(metadata) ||
		getKeyJsonValueFromContainer(&metadata->root, "cloudevent", 10, &member) == NULL ||
		member.type != jbvBinary || !JsonContainerIsObject(member.val.binary.data) ||
		JsonContainerSize(member.val.binary.data) != 2)
		return false;
	found = getKeyJsonValueFromContainer(member.val.binary.data, "id", 2, id);
	if (found == NULL || !is_plain_string(id) || id->val.string.len == 0)
		return false;
	found = getKeyJsonValueFromContainer(member.val.binary.data, "source", 6, source);
	return found != NULL && source->type == jbvString &&
		is_uri_reference(source->val.string.val, source->val.string.len);
}

static void
append_metadata(StringInfo out, Jsonb *metadata, Attributes *attributes)
{
	JsonbIterator *it = JsonbIteratorInit(&metadata->root);
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;
	Jsonb	   *rest;
	char	   *text;

	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &value, true);
		append_member(out, attributes, &key, &value);
	}
	if (attributes->rest == NULL && JB_ROOT_COUNT(metadata) > 0)
		return;
	if (attributes->rest == NULL)
		(void) pushJsonbValue(&attributes->rest, WJB_BEGIN_OBJECT, NULL);
	rest = JsonbValueToJsonb(pushJsonbValue(&attributes->rest, WJB_END_OBJECT, NULL));
	text = JsonbToCString(NULL, &rest->root, VARSIZE(rest));
	appendStringInfoString(out, ",\"metadata\":");
	escape_json(out, text);
}

/* ----- an event as a CloudEvent ----- */

/* Answers whether it is an event from elsewhere. */
static bool
append_identity(StringInfo out, const Datum *values, const char *source,
				Jsonb *metadata)
{
	JsonbValue	id;
	JsonbValue	from;
	bool		is_foreign = find_identity(metadata, &id, &from);

	appendStringInfoString(out, "{\"specversion\":\"1.0\",\"id\":");
	if (is_foreign)
		append_scalar(out, &id);
	else
		EsJsonAppendUuid(out, values[ES_EVENT_EVENT_ID - 1]);
	appendStringInfoString(out, ",\"source\":");
	if (is_foreign)
		append_scalar(out, &from);
	else
		append_string(out, source, strlen(source));
	return is_foreign;
}

/* Columns that an event which is not stored yet may lack. */
static void
append_places(StringInfo out, const Datum *values, const bool *nulls)
{
	if (!nulls[ES_EVENT_RECORDED_AT - 1] &&
		!TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(values[ES_EVENT_RECORDED_AT - 1])))
	{
		appendStringInfoString(out, ",\"time\":");
		EsJsonAppendTime(out, values[ES_EVENT_RECORDED_AT - 1]);
	}
	if (!nulls[ES_EVENT_POSITION - 1])
	{
		char		digits[32];
		int			len = pg_lltoa(DatumGetInt64(values[ES_EVENT_POSITION - 1]), digits);

		appendStringInfo(out, ",\"sequence\":\"%.*s%s\"",
						 Max(0, ES_SEQUENCE_DIGITS - len), "0000000000000000000", digits);
	}
	if (!nulls[ES_EVENT_VERSION - 1])
		appendStringInfo(out, ",\"streamversion\":\"" INT64_FORMAT "\"",
						 DatumGetInt64(values[ES_EVENT_VERSION - 1]));
	if (!nulls[ES_EVENT_TYPE_VERSION - 1])
		appendStringInfo(out, ",\"typeversion\":%d",
						 DatumGetInt32(values[ES_EVENT_TYPE_VERSION - 1]));
}

static void
append_tags(StringInfo out, Datum tags)
{
	StringInfoData array;

	initStringInfo(&array);
	EsJsonAppendTextArray(&array, tags);
	appendStringInfoString(out, ",\"tags\":");
	escape_json(out, array.data);
	pfree(array.data);
}

/*
 * Append an event, given by its columns as in es_event, as a line of JSON.
 * Leaves memory behind in the current context.
 */
void
EsCloudEventAppend(StringInfo out, const Datum *values, const bool *nulls,
				   const char *source)
{
	Jsonb	   *data = DatumGetJsonbP(values[ES_EVENT_DATA - 1]);
	Jsonb	   *metadata = nulls[ES_EVENT_METADATA - 1] ? NULL :
		DatumGetJsonbP(values[ES_EVENT_METADATA - 1]);
	text	   *stream_id = DatumGetTextPP(values[ES_EVENT_STREAM_ID - 1]);
	Attributes	attributes = {0};

	attributes.is_foreign = append_identity(out, values, source, metadata);
	appendStringInfoString(out, ",\"type\":");
	EsJsonAppendText(out, DatumGetTextPP(values[ES_EVENT_EVENT_TYPE - 1]));
	appendStringInfoString(out, ",\"subject\":");
	EsJsonAppendText(out, stream_id);
	append_places(out, values, nulls);
	if (!nulls[ES_EVENT_TAGS - 1])
		append_tags(out, values[ES_EVENT_TAGS - 1]);
	if (metadata != NULL && JB_ROOT_IS_OBJECT(metadata))
	{
		attributes.stream_id = stream_id;
		attributes.may_be_base64 = is_string_not_of_json(data, metadata);
		append_metadata(out, metadata, &attributes);
	}
	if (!attributes.has_partition_key)
	{
		appendStringInfoString(out, ",\"partitionkey\":");
		EsJsonAppendText(out, stream_id);
	}
	if (!attributes.has_content_type)
		appendStringInfoString(out, ",\"datacontenttype\":\"application/json\"");
	appendStringInfoString(out, attributes.is_base64 ? ",\"data_base64\":" : ",\"data\":");
	(void) JsonbToCString(out, &data->root, VARSIZE(data));
	appendStringInfoChar(out, '}');
}

/* A composite's columns; those that every CloudEvent must have are there. */
static void
read_composite(Datum composite, Datum *values, bool *nulls)
{
	static const EsEventColumn needed[] = {
		ES_EVENT_EVENT_ID, ES_EVENT_STREAM_ID, ES_EVENT_EVENT_TYPE, ES_EVENT_DATA
	};
	HeapTupleHeader header = DatumGetHeapTupleHeader(composite);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header),
	.t_data = header};

	Assert(desc->natts == ES_EVENT_NATTS);
	heap_deform_tuple(&tuple, desc, values, nulls);
	for (int i = 0; i < (int) lengthof(needed); i++)
		if (nulls[needed[i] - 1])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("the event's \"%s\" must not be null",
							NameStr(TupleDescAttr(desc, needed[i] - 1)->attname))));
	ReleaseTupleDesc(desc);
}

/* es_to_cloudevent(event es_event) → jsonb */
Datum
es_to_cloudevent(PG_FUNCTION_ARGS)
{
	Datum		values[ES_EVENT_NATTS];
	bool		nulls[ES_EVENT_NATTS];
	StringInfoData out;

	read_composite(PG_GETARG_DATUM(0), values, nulls);
	initStringInfo(&out);
	EsCloudEventAppend(&out, values, nulls, EsCloudEventSource());
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(out.data)));
}

/* ----- a CloudEvent as an event ----- */

/* Members that are looked for by name. */
typedef enum Member
{
	CE_SPECVERSION, CE_ID, CE_SOURCE, CE_TYPE, CE_SUBJECT, CE_TIME, CE_SEQUENCE,
	CE_STREAMVERSION, CE_TYPEVERSION, CE_PARTITIONKEY, CE_DATACONTENTTYPE,
	CE_TAGS, CE_METADATA, CE_DATA, CE_DATA_BASE64, CE_MEMBERS
} Member;

static const char *const member_names[CE_MEMBERS] = {
	"specversion", "id", "source", "type", "subject", "time", "sequence",
	"streamversion", "typeversion", "partitionkey", "datacontenttype",
	"tags", "metadata", "data", "data_base64"
};

typedef struct Incoming
{
	JsonbValue *member[CE_MEMBERS]; /* NULL: absent, or taken into a column */
	Datum		values[ES_EVENT_NATTS];
	bool		nulls[ES_EVENT_NATTS];
	JsonbParseState *metadata;	/* an object under construction */
	bool		has_metadata;	/* and it is to be stored */
} Incoming;

static void
report_bad_member(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid CloudEvent attribute \"%s\"", name),
			 errdetail("%s", detail)));
}

static void
set_column(Incoming *in, EsEventColumn column, Datum value)
{
	in->values[column - 1] = value;
	in->nulls[column - 1] = false;
}

static void
add_metadata(Incoming *in, const char *name, int len, JsonbValue *value)
{
	JsonbValue	key = {.type = jbvString,.val.string = {.len = len,.val = unconstify(char *, name)}};

	(void) pushJsonbValue(&in->metadata, WJB_KEY, &key);
	(void) pushJsonbValue(&in->metadata, WJB_VALUE, value);
	in->has_metadata = true;
}

static void
find_members(Incoming *in, Jsonb *event)
{
	for (int i = 0; i < CE_MEMBERS; i++)
	{
		in->member[i] = getKeyJsonValueFromContainer(&event->root, member_names[i],
													 strlen(member_names[i]), NULL);
		/* an attribute that is null is one that is absent */
		if (in->member[i] != NULL && in->member[i]->type == jbvNull && i != CE_DATA)
			in->member[i] = NULL;
	}
}

/* The string of a member; NULL where it is absent. */
static char *
member_string(Incoming *in, Member which)
{
	JsonbValue *value = in->member[which];

	if (value == NULL)
		return NULL;
	if (value->type != jbvString || value->val.string.len == 0)
		report_bad_member(member_names[which], "It must be a string that is not empty.");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static char *
required_string(Incoming *in, Member which)
{
	char	   *string = member_string(in, which);

	if (string == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("CloudEvent lacks the attribute \"%s\"", member_names[which])));
	return string;
}

/* The UUID of version 5 that stands for a source and an id. */
static pg_uuid_t *
identity_uuid(const char *source, const char *id)
{
	/* RFC 4122's name space for URLs */
	static const uint8 url_space[UUID_LEN] = {
		0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1,
		0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8
	};
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA1);
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));
	uint8		digest[SHA1_DIGEST_LENGTH];

	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, url_space, UUID_LEN) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) source, strlen(source)) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) " ", 1) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) id, strlen(id)) < 0 ||
		pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a SHA-1 hash");
	pg_cryptohash_free(hash);
	memcpy(uuid->data, digest, UUID_LEN);
	uuid->data[6] = (uuid->data[6] & 0x0f) | 0x50;
	uuid->data[8] = (uuid->data[8] & 0x3f) | 0x80;
	return uuid;
}

/* Is it a UUID in the very form that we would write? */
static bool
is_canonical_uuid(const char *id)
{
	if (strlen(id) != 36)
		return false;
	for (int i = 0; i < 36; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? id[i] != '-' :
			!(id[i] >= '0' && id[i] <= '9') && !(id[i] >= 'a' && id[i] <= 'f'))
			return false;
	return true;
}

/* An identity that the columns cannot hold goes into the metadata. */
static void
read_identity(Incoming *in)
{
	char	   *id = required_string(in, CE_ID);
	char	   *source = required_string(in, CE_SOURCE);
	JsonbParseState *state = NULL;
	JsonbValue	key = {.type = jbvString};

	if (!is_plain_string(in->member[CE_ID]))
		report_bad_member("id", "It holds a control character.");
	if (!is_uri_reference(source, strlen(source)))
		report_bad_member("source", "It must be a URI reference.");
	if (is_canonical_uuid(id))
		set_column(in, ES_EVENT_EVENT_ID,
				   DirectFunctionCall1(uuid_in, CStringGetDatum(id)));
	else
		set_column(in, ES_EVENT_EVENT_ID, UUIDPGetDatum(identity_uuid(source, id)));
	if (is_canonical_uuid(id) && strcmp(source, EsCloudEventSource()) == 0)
		return;
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (Member which = CE_ID; which <= CE_SOURCE; which++)
	{
		key.val.string.val = unconstify(char *, member_names[which]);
		key.val.string.len = strlen(member_names[which]);
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE, in->member[which]);
	}
	add_metadata(in, "cloudevent", 10, pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* "d": a digit; anything else: itself */
static bool
has_shape(const char **text, const char *shape)
{
	for (; *shape != '\0'; shape++, (*text)++)
		if (*shape == 'd' ? !isdigit((unsigned char) **text) : **text != *shape)
			return false;
	return true;
}

/* As RFC 3339 has it; the server's own input takes "yesterday" as well. */
static bool
is_rfc3339(char *time)
{
	const char *c = time;

	if (strlen(time) > MAXDATELEN)
		return false;
	for (char *letter = time; *letter != '\0'; letter++)
		*letter = pg_toupper((unsigned char) *letter);
	if (!has_shape(&c, "dddd-dd-ddTdd:dd:dd"))
		return false;
	if (*c == '.')
	{
		c++;
		if (!has_shape(&c, "d"))
			return false;
		while (isdigit((unsigned char) *c))
			c++;
	}
	if (*c == '+' || *c == '-')
	{
		c++;
		return has_shape(&c, "dd:dd") && *c == '\0';
	}
	return strcmp(c, "Z") == 0;
}

static void
read_time(Incoming *in)
{
	char	   *time = member_string(in, CE_TIME);

	if (time == NULL)
		return;
	if (!is_rfc3339(time))
		report_bad_member("time", "It must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z.");
	set_column(in, ES_EVENT_RECORDED_AT,
			   DirectFunctionCall3(timestamptz_in, CStringGetDatum(time),
								   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* A positive number in digits, as a member of this name. */
static bool
member_int64(Incoming *in, Member which, int64 *number)
{
	JsonbValue *value = in->member[which];
	char	   *end;
	char	   *digits;

	if (value == NULL || value->type != jbvString ||
		value->val.string.len == 0 || value->val.string.len > ES_SEQUENCE_DIGITS)
		return false;
	digits = pnstrdup(value->val.string.val, value->val.string.len);
	if (!isdigit((unsigned char) digits[0]))
		return false;
	errno = 0;
	*number = strtoll(digits, &end, 10);
	return errno == 0 && *end == '\0' && *number > 0;
}

/*
 * A sequence is a position only in company: others count theirs, too, and that
 * is kept as an attribute.
 */
static void
read_places(Incoming *in)
{
	int64		position;
	int64		version;
	int32		type_version;

	if (member_int64(in, CE_SEQUENCE, &position) &&
		member_int64(in, CE_STREAMVERSION, &version))
	{
		set_column(in, ES_EVENT_POSITION, Int64GetDatum(position));
		set_column(in, ES_EVENT_VERSION, Int64GetDatum(version));
		in->member[CE_SEQUENCE] = in->member[CE_STREAMVERSION] = NULL;
	}
	if (in->member[CE_TYPEVERSION] != NULL &&
		is_int32(in->member[CE_TYPEVERSION], &type_version) && type_version > 0)
	{
		set_column(in, ES_EVENT_TYPE_VERSION, Int32GetDatum(type_version));
		in->member[CE_TYPEVERSION] = NULL;
	}
}

static void
read_names(Incoming *in)
{
	text	   *event_type = cstring_to_text(required_string(in, CE_TYPE));
	char	   *subject = member_string(in, CE_SUBJECT);
	JsonbValue *key = in->member[CE_PARTITIONKEY];

	EsCheckEventType(event_type);
	set_column(in, ES_EVENT_EVENT_TYPE, PointerGetDatum(event_type));
	if (subject == NULL)
		return;
	EsCheckStreamId(cstring_to_text(subject));
	set_column(in, ES_EVENT_STREAM_ID, CStringGetTextDatum(subject));
	if (key != NULL && key->type == jbvString &&
		key->val.string.len == (int) strlen(subject) &&
		memcmp(key->val.string.val, subject, key->val.string.len) == 0)
		in->member[CE_PARTITIONKEY] = NULL;
}

/* A member that is a string of JSON, parsed; NULL where it is none. */
static Jsonb *
member_json(Incoming *in, Member which)
{
	JsonbValue *value = in->member[which];
	char	   *string;

	if (value == NULL || value->type != jbvString)
		return NULL;
	string = pnstrdup(value->val.string.val, value->val.string.len);
	if (!EsJsonIsValid(string))
		return NULL;
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(string)));
}

static void
read_tags(Incoming *in)
{
	Jsonb	   *tags = member_json(in, CE_TAGS);
	Datum	   *elements;
	int			n;

	if (tags == NULL || !JB_ROOT_IS_ARRAY(tags) || JB_ROOT_IS_SCALAR(tags))
		return;
	n = JB_ROOT_COUNT(tags);
	elements = palloc((n + 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *tag = getIthJsonbValueFromContainer(&tags->root, i);

		if (tag->type != jbvString)
			return;
		elements[i] = PointerGetDatum(cstring_to_text_with_len(tag->val.string.val,
															   tag->val.string.len));
	}
	set_column(in, ES_EVENT_TAGS,
			   PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT)));
	in->member[CE_TAGS] = NULL;
}

/* Base64 of JSON is JSON; of anything else it is kept as it is. */
static Datum
read_base64(Incoming *in, bool is_json)
{
	char	   *base64 = member_string(in, CE_DATA_BASE64);
	JsonbValue	yes = {.type = jbvBool,.val.boolean = true};
	Datum		bytes;
	Datum		json;

	bytes = DirectFunctionCall2(binary_decode, CStringGetTextDatum(base64),
								CStringGetTextDatum("base64"));
	if (!is_json)
	{
		add_metadata(in, "data_base64", 11, &yes);
		return JsonbPGetDatum(JsonbValueToJsonb(in->member[CE_DATA_BASE64]));
	}
	json = DirectFunctionCall2(pg_convert_from, bytes, CStringGetDatum("UTF8"));
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(json)));
}

static void
read_data(Incoming *in)
{
	char	   *type = member_string(in, CE_DATACONTENTTYPE);
	JsonbValue	none = {.type = jbvNull};
	JsonbValue *data = in->member[CE_DATA];

	if (data != NULL && in->member[CE_DATA_BASE64] != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("CloudEvent has both \"%s\" and \"%s\"", "data", "data_base64")));
	if (in->member[CE_DATA_BASE64] != NULL)
		set_column(in, ES_EVENT_DATA,
				   read_base64(in, type == NULL || is_json_type(type, strlen(type))));
	else
		set_column(in, ES_EVENT_DATA,
				   JsonbPGetDatum(JsonbValueToJsonb(data == NULL ? &none : data)));
	if (type != NULL && strcmp(type, "application/json") == 0)
		in->member[CE_DATACONTENTTYPE] = NULL;
}

/* Is this member in a column, or does it go there by other ways? */
static bool
is_read(const Incoming *in, const char *name, int len)
{
	for (int i = 0; i < CE_MEMBERS; i++)
		if ((int) strlen(member_names[i]) == len && memcmp(name, member_names[i], len) == 0)
			return i <= CE_TIME || i == CE_DATA || i == CE_DATA_BASE64 ||
				in->member[i] == NULL;
	return false;
}

static void
read_extension(Incoming *in, const char *name, int len, JsonbValue *value)
{
	int32		number;

	if (!is_attribute_name(name, len))
		report_bad_member(pnstrdup(name, len), "A name consists of lower-case letters and digits.");
	if (value->type == jbvNull || is_read(in, name, len))
		return;
	if (value->type != jbvString && value->type != jbvBool && !is_int32(value, &number))
		report_bad_member(pnstrdup(name, len), "It must be a string, a boolean or an integer of 32 bits.");
	if (NAME_IS(name, len, "correlationid") && value->type == jbvString)
		add_metadata(in, "correlation_id", 14, value);
	else if (NAME_IS(name, len, "causationid") && value->type == jbvString)
		add_metadata(in, "causation_id", 12, value);
	else
		add_metadata(in, name, len, value);
}

/* All members that no column holds, and then what was metadata before. */
static void
read_extensions(Incoming *in, Jsonb *event)
{
	Jsonb	   *metadata = member_json(in, CE_METADATA);
	JsonbIterator *it = JsonbIteratorInit(&event->root);
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	if (metadata != NULL && JB_ROOT_IS_OBJECT(metadata))
		in->member[CE_METADATA] = NULL;
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &value, true);
		if (!NAME_IS(key.val.string.val, key.val.string.len, "data_base64"))
			read_extension(in, key.val.string.val, key.val.string.len, &value);
	}
	if (metadata == NULL || !JB_ROOT_IS_OBJECT(metadata))
		return;
	in->has_metadata = true;
	it = JsonbIteratorInit(&metadata->root);
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &value, true);
		add_metadata(in, key.val.string.val, key.val.string.len, &value);
	}
}

static void
read_cloudevent(Incoming *in, Jsonb *event)
{
	JsonbValue *metadata;

	find_members(in, event);
	if (strcmp(required_string(in, CE_SPECVERSION), "1.0") != 0)
		report_bad_member("specversion", "It must be 1.0.");
	(void) pushJsonbValue(&in->metadata, WJB_BEGIN_OBJECT, NULL);
	read_names(in);
	read_time(in);
	read_places(in);
	read_tags(in);
	read_data(in);
	read_extensions(in, event);
	read_identity(in);
	metadata = pushJsonbValue(&in->metadata, WJB_END_OBJECT, NULL);
	if (in->has_metadata)
		set_column(in, ES_EVENT_METADATA, JsonbPGetDatum(JsonbValueToJsonb(metadata)));
}

/* es_from_cloudevent(event jsonb) → es_event */
Datum
es_from_cloudevent(PG_FUNCTION_ARGS)
{
	Jsonb	   *event = PG_GETARG_JSONB_P(0);
	Incoming	in = {0};
	TupleDesc	desc;

	if (!JB_ROOT_IS_OBJECT(event))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a CloudEvent must be a JSON object"),
				 errhint("Give the elements of a batch one by one, as jsonb_array_elements() does.")));
	memset(in.nulls, true, sizeof(in.nulls));
	read_cloudevent(&in, event);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	Assert(desc->natts == ES_EVENT_NATTS);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  in.values, in.nulls)));
}
