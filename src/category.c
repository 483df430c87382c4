/*
 * category.c: which aggregate folds a stream, where none is named.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "category.h"
#include "stream.h"

/* An aggregate and the category of its streams. */
typedef struct DirectoryEntry
{
	char	   *name;
	char	   *category;
	int			category_len;
} DirectoryEntry;

/* All aggregates that fold streams. */
typedef struct Directory
{
	MemoryContext context;
	uint64		generation;		/* of the definitions; 0: never filled */
	int			count;
	int			size;
	DirectoryEntry *entries;
} Directory;

static Directory directory;

static bool
visit_directory(Relation rel, HeapTuple tuple, void *arg)
{
	DirectoryEntry *entry;

	if (!heap_attisnull(tuple, ES_AGGREGATE_BOUNDARY, RelationGetDescr(rel)))
		return true;			/* folds no stream */
	if (directory.count == directory.size)
	{
		directory.size = directory.size == 0 ? 8 : directory.size * 2;
		directory.entries = directory.entries == NULL ?
			palloc(directory.size * sizeof(DirectoryEntry)) :
			repalloc(directory.entries, directory.size * sizeof(DirectoryEntry));
	}
	entry = &directory.entries[directory.count];
	entry->name = EsRowText(rel, tuple, ES_AGGREGATE_NAME);
	entry->category = EsRowText(rel, tuple, ES_AGGREGATE_CATEGORY);
	entry->category_len = strlen(entry->category);
	directory.count++;
	return true;
}

static void
fill_directory(void)
{
	uint64		made_from = EsAggregateGeneration();
	MemoryContext saved;

	if (directory.generation == made_from)
		return;
	if (directory.context == NULL)
		directory.context = AllocSetContextCreate(CacheMemoryContext,
												  "eventstore aggregate directory",
												  ALLOCSET_SMALL_SIZES);
	directory.generation = 0;
	directory.count = directory.size = 0;
	directory.entries = NULL;
	MemoryContextReset(directory.context);
	saved = MemoryContextSwitchTo(directory.context);
	EsCatalogScan(EsStoreGet()->aggregate, ES_AGGREGATE_NAME, NULL,
				  visit_directory, NULL);
	MemoryContextSwitchTo(saved);
	directory.generation = made_from;
}

/* Is there any aggregate of streams in this database? */
bool
EsAggregatesExist(void)
{
	fill_directory();
	return directory.count > 0;
}

/*
 * The names of all aggregates whose category is the stream's; see
 * EsAggregateName for the one.
 */
List *
EsAggregatesOfStream(const text *stream_id)
{
	const char *data = VARDATA_ANY(stream_id);
	int			len = EsCategoryLength(data, VARSIZE_ANY_EXHDR(stream_id));
	List	   *names = NIL;

	fill_directory();
	for (int i = 0; i < directory.count; i++)
		if (directory.entries[i].category_len == len &&
			memcmp(directory.entries[i].category, data, len) == 0)
			names = lappend(names, pstrdup(directory.entries[i].name));
	return names;
}

/*
 * The aggregate to fold a stream with: the one named or, where the name is
 * NULL, the only one for the stream's category.  42704 where there is none,
 * 42725 where there are several.
 */
char *
EsAggregateName(const text *name, const text *stream_id)
{
	List	   *names;

	if (name != NULL)
		return text_to_cstring(name);
	names = EsAggregatesOfStream(stream_id);
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no aggregate for stream \"%s\"",
						text_to_cstring(stream_id)),
				 errhint("Create one for its category with es_create_aggregate(), or name one.")));
	if (list_length(names) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("there are several aggregates for stream \"%s\"",
						text_to_cstring(stream_id)),
				 errdetail("Two of them are \"%s\" and \"%s\".",
						   (char *) linitial(names), (char *) lsecond(names)),
				 errhint("Name the one that is meant.")));
	return linitial(names);
}
