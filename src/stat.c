/*
 * stat.c: what the store counts.
 *
 * WHERE THE COUNTERS ARE.  In the server's own cumulative statistics, under
 * the name of es_counter, a table without rows that nobody reads: four of the
 * numbers that the server keeps for each table stand there for what the store
 * has to count.  So counting needs no preloading and no shared memory of our
 * own; a session adds to numbers of its own, and the server brings them
 * together when the session falls idle, at most once a second.  They do not
 * go back when a transaction does, which a count of conflicts must not; they
 * survive a restart and are lost in a crash, like all statistics.  A store
 * that does nothing costs nothing.
 *
 * WHAT IS NOT COUNTED.  Events, streams and speed are read off the log when
 * somebody asks (stat_store.c).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "fmgr.h"
#include "pgstat.h"
#include "utils/relcache.h"

#include "stat.h"

PG_FUNCTION_INFO_V1(es_stat_reset);

/*
 * Count, without taking a lock: the caller holds one on es_event, which keeps
 * the extension, and es_counter with it, from being dropped.
 */
void
EsStatCount(EsCounter counter, int n)
{
	Relation	rel = RelationIdGetRelation(EsStoreGet()->counter);

	if (rel == NULL)
		return;
	pgstat_init_relation(rel);
	switch (counter)
	{
		case ES_COUNT_EVENTS:
			pgstat_count_index_tuples(rel, n);
			break;
		case ES_COUNT_CONFLICTS:
			pgstat_count_heap_fetch(rel);
			break;
		case ES_COUNT_REJECTED:
			pgstat_count_buffer_read(rel);
			break;
		case ES_COUNT_RETRIES:
			pgstat_count_buffer_hit(rel);
			break;
	}
	RelationClose(rel);
}

/*
 * es_stat_reset() → void
 */
Datum
es_stat_reset(PG_FUNCTION_ARGS)
{
	pgstat_reset(PGSTAT_KIND_RELATION, MyDatabaseId, EsStoreGet()->counter);
	PG_RETURN_VOID();
}
