/*
 * compat.h: what differs between the supported server versions.
 *
 * The only file that looks at PG_VERSION_NUM, so that the other rooms read
 * as if there were one PostgreSQL.  Floor: 15.
 */
#ifndef ES_COMPAT_H
#define ES_COMPAT_H

#include "access/genam.h"
#include "common/jsonapi.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "parser/parse_relation.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/rel.h"
#include "utils/relcache.h"

/* Before the type of a function that does not return, as 18 writes it. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* The local id of this backend's running top transaction; never reused. */
static inline LocalTransactionId
EsCurrentLxid(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

static inline IndexScanDesc
EsIndexBeginScan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

static inline List *
EsInsertIndexTuples(ResultRelInfo *target, TupleTableSlot *slot, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	return ExecInsertIndexTuples(target, slot, estate, false, false, NULL, NIL,
								 false);
#else
	return ExecInsertIndexTuples(target, slot, estate, false, false, NULL, NIL);
#endif
}

/* A range table of one relation, with the permission entry that errors read. */
static inline void
EsInitRangeTable(EState *estate, RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	List	   *permissions = NIL;

	(void) addRTEPermissionInfo(&permissions, rte);
#endif
#if PG_VERSION_NUM >= 180000
	ExecInitRangeTable(estate, list_make1(rte), permissions,
					   bms_make_singleton(1));
#elif PG_VERSION_NUM >= 160000
	ExecInitRangeTable(estate, list_make1(rte), permissions);
#else
	ExecInitRangeTable(estate, list_make1(rte));
#endif
}

/* The transaction that holds a lock of the lock manager's list. */
static inline VirtualTransactionId
EsLockVxid(const LockInstanceData *held)
{
#if PG_VERSION_NUM >= 170000
	return held->vxid;
#else
	VirtualTransactionId vxid = {held->backend, held->lxid};

	return vxid;
#endif
}

/* Does this backend hold the lock in exactly this mode? */
static inline bool
EsLockIsHeld(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/* What session i, from 1, shows of itself; NULL where there is none. */
static inline const PgBackendStatus *
EsBackendStatus(int i)
{
#if PG_VERSION_NUM >= 160000
	LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(i);
#else
	LocalPgBackendStatus *local = pgstat_fetch_stat_local_beentry(i);
#endif

	return local == NULL ? NULL : &local->backendStatus;
}

/* The index of a relation's primary key. */
static inline Oid
EsPrimaryKey(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

static inline bool
EsOwnsRelation(Oid relid, Oid roleid)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, roleid);
#else
	return pg_class_ownercheck(relid, roleid);
#endif
}

/* Is this text well-formed JSON?  Throws only for one that is nested too deep. */
static inline bool
EsJsonIsValid(const char *text)
{
	JsonLexContext *lex;

#if PG_VERSION_NUM >= 170000
	lex = makeJsonLexContextCstringLen(NULL, text, strlen(text), PG_UTF8, true);
#else
	lex = makeJsonLexContextCstringLen(unconstify(char *, text), strlen(text),
									   PG_UTF8, true);
#endif
	return pg_parse_json(lex, &nullSemAction) == JSON_SUCCESS;
}

#endif							/* ES_COMPAT_H */
