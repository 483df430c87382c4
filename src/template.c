/*
 * template.c: tags made of an event's data.
 *
 * A template is text with paths in braces, such as course:{courseId}.  It is
 * parsed into pieces when the declarations are read; at append each piece is
 * looked up in the data, and an array multiplies the tags.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "tag.h"
#include "template.h"

/* A piece of a tag template: fixed text, or the way to a value. */
typedef struct TemplatePart
{
	char	   *literal;		/* or NULL */
	List	   *path;			/* keys, outermost first */
} TemplatePart;

/* ----- parse ----- */

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

/*
 * Templates as EsTemplatesExpand takes them, in the current memory context;
 * 22023 or 22004 if one is none.
 */
List *
EsTemplatesParse(ArrayType *templates)
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

/* ----- fill in ----- */

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

/* Many tags may be the same; more than this are not even looked at. */
#define ES_MAX_EXPANDED 10000

static void
check_expanded(const ArrayBuildState *tags)
{
	CHECK_FOR_INTERRUPTS();
	if (tags != NULL && tags->nelems >= ES_MAX_EXPANDED)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the event's type gives it too many tags"),
				 errdetail("Templates make a tag of each combination of the elements of arrays.")));
}

/* Add to tags what the parts from the n-th on make of a beginning. */
static void
expand_template(ArrayBuildState **tags, Jsonb *data, List *parts, int n,
				const char *beginning)
{
	TemplatePart *part;
	ListCell   *cell;

	check_expanded(*tags);
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

/*
 * The tags that an event has: those that the templates make of its data, and
 * those that it was given.
 */
ArrayType *
EsTemplatesExpand(List *templates, Jsonb *data, ArrayType *given)
{
	ArrayBuildState *tags = NULL;
	ListCell   *cell;
	Datum	   *elements;
	int			n;

	foreach(cell, templates)
		expand_template(&tags, data, lfirst(cell), 0, "");
	if (tags == NULL)
		return given;
	if (given != NULL)
	{
		deconstruct_array(given, TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, NULL, &n);
		for (int i = 0; i < n; i++)
			tags = accumArrayResult(tags, elements[i], false, TEXTOID,
									CurrentMemoryContext);
	}
	return EsCheckTags(DatumGetArrayTypeP(makeArrayResult(tags, CurrentMemoryContext)));
}
