/*
 * versioned.c: definitions for versions of event types, as a session keeps
 * them.
 *
 * A session reads all rows of a kind at once and compiles each expression
 * when it is first needed.  It keeps the result until the relation cache
 * reports a change of the table, or anything that an expression depends on
 * has changed; then all is read anew.  What is replaced may be in use
 * further up the stack, so it lives on to the end of the transaction.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "stream.h"
#include "versioned.h"

/* ----- what makes definitions stale ----- */

static void
on_relation_change(Datum arg, Oid relid)
{
	EsVersionedCache *cache = (EsVersionedCache *) DatumGetPointer(arg);

	if (relid == InvalidOid || relid == cache->table || relid == cache->event)
		cache->generation++;
}

static void
on_role_change(Datum arg, int cacheid, uint32 hash)
{
	EsVersionedCache *cache = (EsVersionedCache *) DatumGetPointer(arg);

	if (cache->current.all != NIL)
		cache->generation++;
}

void
EsVersionedInit(EsVersionedCache *cache)
{
	cache->generation = 1;
	EsOnRelationChange(on_relation_change, PointerGetDatum(cache));
	CacheRegisterSyscacheCallback(AUTHOID, on_role_change, PointerGetDatum(cache));
}

/* Would reading make a difference?  Accept invalidations before. */
bool
EsVersionedIsStale(const EsVersionedCache *cache)
{
	ListCell   *cell;

	if (cache->current.context == NULL ||
		cache->current.generation != cache->generation)
		return true;
	foreach(cell, cache->current.all)
	{
		EsVersioned *definition = lfirst(cell);

		if (definition->expression != NULL &&
			!definition->expression->cached->is_valid)
			return true;
	}
	return false;
}

/* ----- reading ----- */

typedef struct Reading
{
	const EsVersionedKind *kind;
	EsVersionedSet *into;
} Reading;

static bool
same_type(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/*
 * Is the text kept in the TOAST table, which logical decoding cannot look back
 * into?
 */
static bool
is_out_of_reach(Relation rel, HeapTuple tuple, AttrNumber column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

	return HistoricSnapshotActive() && !isnull &&
		VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value));
}

static int
compare_definitions(const ListCell *a, const ListCell *b)
{
	const EsVersioned *one = lfirst(a);
	const EsVersioned *other = lfirst(b);
	Size		len = VARSIZE_ANY_EXHDR(one->event_type);
	Size		other_len = VARSIZE_ANY_EXHDR(other->event_type);
	int			order = memcmp(VARDATA_ANY(one->event_type), VARDATA_ANY(other->event_type),
							   Min(len, other_len));

	if (order == 0 && len != other_len)
		order = len < other_len ? -1 : 1;
	if (order == 0)
		order = one->version < other->version ? -1 : 1;
	return order;
}

/* Put the definitions in order, and lead from each version to the older one. */
static void
link_definitions(EsVersionedSet *into)
{
	EsVersioned *before = NULL;
	ListCell   *cell;

	list_sort(into->all, compare_definitions);
	foreach(cell, into->all)
	{
		EsVersioned *definition = lfirst(cell);

		definition->index = foreach_current_index(cell);
		if (before != NULL && same_type(before->event_type, definition->event_type))
			definition->older = before;
		before = definition;
	}
}

static bool
visit_row(Relation rel, HeapTuple tuple, void *arg)
{
	const EsVersionedKind *kind = ((Reading *) arg)->kind;
	EsVersionedSet *into = ((Reading *) arg)->into;
	EsVersioned *definition;
	bool		isnull;

	if (is_out_of_reach(rel, tuple, kind->sql))
		return true;
	definition = palloc0(kind->size);
	definition->event_type = cstring_to_text(EsRowText(rel, tuple, 1));
	definition->version = DatumGetInt32(heap_getattr(tuple, 2, RelationGetDescr(rel),
													 &isnull));
	definition->sql = EsRowText(rel, tuple, kind->sql);
	definition->definer = EsDefinerOfRow(rel, tuple, kind->owner, kind->search_path);
	if (kind->read_rest != NULL)
		kind->read_rest(rel, tuple, definition);
	into->all = lappend(into->all, definition);
	return true;
}

static inline uint32
type_hash(const text *event_type)
{
	return EsEventTypeHash(VARDATA_ANY(event_type), VARSIZE_ANY_EXHDR(event_type));
}

/* Enter the definitions; a newer version takes the place of the one before. */
static void
fill_hash(EsVersionedSet *into)
{
	ListCell   *cell;

	into->mask = 7;
	while ((int) into->mask < 2 * list_length(into->all))
		into->mask = into->mask * 2 + 1;
	into->by_hash = palloc0((into->mask + 1) * sizeof(EsVersioned *));
	foreach(cell, into->all)
	{
		EsVersioned *definition = lfirst(cell);
		uint32		slot = type_hash(definition->event_type) & into->mask;

		while (into->by_hash[slot] != NULL &&
			   into->by_hash[slot] != definition->older)
			slot = (slot + 1) & into->mask;
		into->by_hash[slot] = definition;
	}
}

/* Planned trees live outside the definitions' context. */
static void
release_expressions(void *arg)
{
	ListCell   *cell;

	foreach(cell, *(List **) arg)
	{
		EsVersioned *definition = lfirst(cell);

		if (definition->expression != NULL)
			EsExpressionFree(definition->expression);
	}
}

/* See to it that the expressions go with the context, which is current. */
static void
release_with_context(MemoryContext context, List *all)
{
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));
	List	  **copy = palloc(sizeof(List *));

	*copy = all;
	callback->func = release_expressions;
	callback->arg = copy;
	MemoryContextRegisterResetCallback(context, callback);
}

/* Read all definitions as they are committed by now. */
void
EsVersionedRead(EsVersionedCache *cache)
{
	const EsStore *store = EsStoreGet();
	EsVersionedSet new = {.generation = ++cache->generation};
	Reading		reading = {.kind = cache->kind,.into = &new};
	MemoryContext saved;

	cache->table = *(const Oid *) ((const char *) store + cache->kind->table);
	cache->event = store->event;
	new.context = AllocSetContextCreate(CurrentMemoryContext,
										"eventstore definitions",
										ALLOCSET_SMALL_SIZES);
	MemoryContextSetIdentifier(new.context, cache->kind->name);
	saved = MemoryContextSwitchTo(new.context);
	EsCatalogScan(cache->table, 1, NULL, visit_row, &reading);
	link_definitions(&new);
	fill_hash(&new);
	new.scope = EsEventScope(new.context);
	release_with_context(new.context, new.all);
	MemoryContextSwitchTo(saved);
	if (cache->current.context != NULL)
		MemoryContextSetParent(cache->current.context, TopTransactionContext);
	MemoryContextSetParent(new.context, CacheMemoryContext);
	cache->current = new;
}

/* ----- finding ----- */

/* The newest version of a type that is defined, or NULL. */
EsVersioned *
EsVersionedNewest(const EsVersionedSet *set, const text *event_type)
{
	uint32		slot = type_hash(event_type) & set->mask;
	EsVersioned *definition;

	while ((definition = set->by_hash[slot]) != NULL &&
		   !same_type(definition->event_type, event_type))
		slot = (slot + 1) & set->mask;
	return definition;
}

/* The definition for exactly this version, or NULL. */
EsVersioned *
EsVersionedFind(const EsVersionedSet *set, const text *event_type, int32 version)
{
	EsVersioned *definition = EsVersionedNewest(set, event_type);

	while (definition != NULL && definition->version > version)
		definition = definition->older;
	return definition != NULL && definition->version == version ? definition : NULL;
}
