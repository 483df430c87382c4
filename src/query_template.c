/*
 * query_template.c: a query with placeholders in its tags, filled from a
 * command.
 *
 * It is the boundary of an aggregate: the JSON of match.c, each of its tags a
 * template of template.c.  Where a placeholder leads to an array, the item is
 * there once for each of its elements, which are alternatives: an order
 * concerns the events of each of its products, not those of all at once.  An
 * empty array concerns none, and the item is left out.
 *
 * A placeholder without a value would leave an item that asks for less, and
 * so matches more, than was meant; it is an error.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "query_template.h"
#include "stream.h"
#include "template.h"

/* An item of the query. */
typedef struct ItemTemplate
{
	text	  **types;			/* as in EsBoundaryItem */
	int			ntypes;
	EsTemplate **tags;
	char	  **texts;			/* the same as they were written */
	int			ntags;
} ItemTemplate;

struct EsQueryTemplate
{
	ItemTemplate *items;
	int			nitems;
};

/* A query on its way from a template and a command. */
typedef struct Filling
{
	Jsonb	   *command;
	EsBoundary *query;
	int			room;			/* items that it can hold */
} Filling;

/* ----- parse ----- */

static void
parse_item(const EsBoundaryItem *item, ItemTemplate *template)
{
	template->types = item->types;
	template->ntypes = item->ntypes;
	template->ntags = item->ntags;
	template->tags = palloc(item->ntags * sizeof(EsTemplate *));
	template->texts = palloc(item->ntags * sizeof(char *));
	for (int i = 0; i < item->ntags; i++)
	{
		template->texts[i] = text_to_cstring(item->tags[i]);
		template->tags[i] = EsTemplateParse(template->texts[i]);
	}
}

/*
 * Read a query whose tags are templates, into the current memory context.
 * 22023 for what is no query or no template, 54000 for one that is too large.
 */
EsQueryTemplate *
EsQueryTemplateParse(Jsonb *json)
{
	EsBoundary *query = EsBoundaryParse(json);
	EsQueryTemplate *template = palloc(sizeof(EsQueryTemplate));

	template->nitems = query->nitems;
	template->items = palloc(query->nitems * sizeof(ItemTemplate));
	for (int i = 0; i < query->nitems; i++)
		parse_item(&query->items[i], &template->items[i]);
	return template;
}

/* ----- fill ----- */

/* Texts of their own: the template may go away before the query. */
static text **
copy_names(text *const *names, int n)
{
	text	  **copies = palloc(Max(n, 1) * sizeof(text *));

	for (int i = 0; i < n; i++)
		copies[i] = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(names[i]));
	return copies;
}

static void
add_item(Filling *filling, const ItemTemplate *template, text **tags)
{
	EsBoundary *query = filling->query;
	EsBoundaryItem *item;

	if (query->nitems == ES_MAX_QUERY_ITEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the boundary of the command is too large"),
				 errdetail("Its arrays give more than %d items.", ES_MAX_QUERY_ITEMS)));
	if (query->nitems == filling->room)
	{
		filling->room *= 2;
		query->items = repalloc(query->items, filling->room * sizeof(EsBoundaryItem));
	}
	item = &query->items[query->nitems++];
	item->types = copy_names(template->types, template->ntypes);
	item->ntypes = template->ntypes;
	item->tags = palloc(Max(template->ntags, 1) * sizeof(text *));
	memcpy(item->tags, tags, template->ntags * sizeof(text *));
	item->ntags = EsNamesMakeSet(item->tags, template->ntags);
	query->broad |= item->ntags == 0;
}

/* Add an item for each combination of the tags from the n-th on. */
static void
fill_item(Filling *filling, const ItemTemplate *template, text **tags, int n)
{
	List	   *texts;
	ListCell   *cell;
	bool		complete;

	CHECK_FOR_INTERRUPTS();
	if (n == template->ntags)
	{
		add_item(filling, template, tags);
		return;
	}
	texts = EsTemplateExpand(template->tags[n], filling->command, &complete);
	if (!complete)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the command has no value for \"%s\"", template->texts[n]),
				 errdetail("What a boundary's tag is filled from must be a string, a number, a boolean or an array of those.")));
	foreach(cell, texts)
	{
		tags[n] = cstring_to_text(lfirst(cell));
		EsCheckTag(tags[n]);
		fill_item(filling, template, tags, n + 1);
	}
}

/*
 * The query for a command, in the current memory context.  22023 where the command lacks a value or leaves nothing.
 */
EsBoundary *
EsQueryTemplateFill(const EsQueryTemplate *template, Jsonb *command)
{
	Filling		filling = {.command = command,.room = template->nitems};
	text	   *tags[ES_MAX_TAGS];

	filling.query = palloc0(sizeof(EsBoundary));
	filling.query->items = palloc(filling.room * sizeof(EsBoundaryItem));
	for (int i = 0; i < template->nitems; i++)
		fill_item(&filling, &template->items[i], tags, 0);
	if (filling.query->nitems == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the boundary of the command is empty"),
				 errdetail("Each item of the boundary is filled from an empty array.")));
	return filling.query;
}
