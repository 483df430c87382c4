/*
 * template.c: texts with placeholders, to be filled from JSON.
 *
 * "course:{courseId}" with {"courseId": "c1"} is course:c1.  {a.b} is member b
 * of member a, {{ a brace.  A placeholder may lead to a string, a number or a
 * boolean, or to an array of those, which gives a text for each element.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "template.h"

/* Texts of one template; most of so many must be the same. */
#define ES_MAX_EXPANDED 10000

/* A piece of a template: fixed text, or the way to a value. */
typedef struct TemplatePart
{
	char	   *literal;		/* or NULL */
	List	   *path;			/* keys, outermost first */
} TemplatePart;

struct EsTemplate
{
	List	   *parts;			/* of TemplatePart */
};

/* Texts that are being made of a template. */
typedef struct Expansion
{
	const EsTemplate *template;
	Jsonb	   *data;
	List	   *texts;			/* of C strings */
	bool		complete;		/* no placeholder was without a value so far */
} Expansion;

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

/* Read a text, into the current memory context; 22023 if it is no template. */
EsTemplate *
EsTemplateParse(const char *template)
{
	EsTemplate *made;
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
	made = palloc(sizeof(EsTemplate));
	made->parts = parts;
	return made;
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

/* Add the text of a value; what is no scalar has none. */
static void
add_text(Expansion *expansion, List **texts, const JsonbValue *value)
{
	char	   *text = scalar_text(value);

	if (text == NULL)
		expansion->complete = false;
	else
		*texts = lappend(*texts, text);
}

/* The texts that a path leads to: none, one, or an array's elements. */
static List *
path_texts(Expansion *expansion, List *path)
{
	JsonbContainer *container = &expansion->data->root;
	JsonbValue	value;
	List	   *texts = NIL;
	ListCell   *cell;

	foreach(cell, path)
	{
		char	   *key = lfirst(cell);

		if (container == NULL || !JsonContainerIsObject(container) ||
			getKeyJsonValueFromContainer(container, key, strlen(key), &value) == NULL)
		{
			expansion->complete = false;
			return NIL;
		}
		container = value.type == jbvBinary ? value.val.binary.data : NULL;
	}
	if (container == NULL || !JsonContainerIsArray(container))
		add_text(expansion, &texts, &value);
	else
		for (uint32 i = 0; i < JsonContainerSize(container); i++)
			add_text(expansion, &texts, getIthJsonbValueFromContainer(container, i));
	return texts;
}

/* Several placeholders that lead to arrays multiply. */
static void
check_length(const Expansion *expansion)
{
	CHECK_FOR_INTERRUPTS();
	if (list_length(expansion->texts) >= ES_MAX_EXPANDED)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a template gives too many texts"),
				 errdetail("It gives one for each combination of the elements of arrays.")));
}

/* Add what the parts from the n-th on make of a beginning. */
static void
expand(Expansion *expansion, int n, char *beginning)
{
	TemplatePart *part;
	ListCell   *cell;

	check_length(expansion);
	if (n == list_length(expansion->template->parts))
	{
		expansion->texts = lappend(expansion->texts, beginning);
		return;
	}
	part = list_nth(expansion->template->parts, n);
	foreach(cell, part->literal != NULL ? list_make1(part->literal) :
			path_texts(expansion, part->path))
		expand(expansion, n + 1, psprintf("%s%s", beginning, (char *) lfirst(cell)));
}

/*
 * The texts, C strings, that the template and the data give: each combination
 * of the placeholders' values.  *complete says whether every placeholder led
 * to what it may lead to; an array without elements is that, too.
 */
List *
EsTemplateExpand(const EsTemplate *template, Jsonb *data, bool *complete)
{
	Expansion	expansion = {.template = template,.data = data,.complete = true};

	expand(&expansion, 0, "");
	*complete = expansion.complete;
	return expansion.texts;
}
