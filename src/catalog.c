/*
 * catalog.c: the only door to the extension's own tables.
 *
 * The hot path needs a handful of OIDs and must not look them up for each
 * event, so they are found once a session and forgotten when the relation
 * cache reports a change to any of them (DROP EXTENSION, ALTER TABLE, a
 * rebuilt index).  The struct is rebuilt whole; nobody keeps a pointer to it
 * across a call that may process invalidations.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_subscription_rel.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "point.h"

static EsStore store;			/* valid while store_known */
static bool store_known = false;

/* Who else is told of changes to relations. */
#define ES_MAX_LISTENERS 32

static struct
{
	RelcacheCallbackFunction function;
	Datum		arg;
}			listeners[ES_MAX_LISTENERS];
static int	nlisteners = 0;

static void
forget_store(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == store.event ||
		relid == store.gate || relid == store.settled ||
		relid == store.epoch ||
		relid == store.position_seq || relid == store.event_tag ||
		relid == store.retagged || relid == store.archive_segment ||
		relid == store.archive_run || relid == store.archive_key ||
		relid == store.subscription_parked)
		store_known = false;
}

static void
on_relation_change(Datum arg, Oid relid)
{
	forget_store(arg, relid);
	for (int i = 0; i < nlisteners; i++)
		listeners[i].function(listeners[i].arg, relid);
}

/*
 * Have a function called whenever a relation's cache entry is invalidated.
 * All rooms share one of the server's few places for such callbacks: it has
 * ten for itself and all libraries, and ends the session for want of one.
 */
void
EsOnRelationChange(RelcacheCallbackFunction function, Datum arg)
{
	if (nlisteners >= ES_MAX_LISTENERS)
		elog(FATAL, "out of places for relation cache callbacks");
	listeners[nlisteners].function = function;
	listeners[nlisteners].arg = arg;
	nlisteners++;
}

void
EsCatalogInit(void)
{
	CacheRegisterRelcacheCallback(on_relation_change, (Datum) 0);
}

/*
 * Schema and owner of an extension; false where it is not installed.
 */
static bool
find_extension(const char *name, Oid *schema, Oid *owner)
{
	Oid			extension = get_extension_oid(name, true);
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	if (!OidIsValid(extension))
		return false;
	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		*schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
		*owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

static void
report_not_installed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"%s\" is not installed in this database",
					"eventstore"),
			 errhint("Run CREATE EXTENSION eventstore.")));
}

/* Is there a store in this database? */
bool
EsIsInstalled(void)
{
	Oid			schema;
	Oid			owner;

	return find_extension("eventstore", &schema, &owner);
}

/* The gate as last seen, for invalidation callbacks, which may not look. */
Oid
EsGateOid(void)
{
	return store.gate;
}

/* The role that owns the extension. */
Oid
EsExtensionOwner(void)
{
	Oid			schema;
	Oid			owner;

	if (!find_extension("eventstore", &schema, &owner))
		report_not_installed();
	return owner;
}

/* The schema of any extension; invalid where it is not installed. */
Oid
EsExtensionSchema(const char *name)
{
	Oid			schema;
	Oid			owner;

	return find_extension(name, &schema, &owner) ? schema : InvalidOid;
}

static Oid
find_relation(Oid schema, const char *name)
{
	Oid			relid = get_relname_relid(name, schema);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of extension \"%s\" does not exist",
						name, "eventstore"),
				 errhint("Drop and create the extension, or restore it from a backup.")));
	return relid;
}

/*
 * This database's store; 55000 where the extension is not installed.
 * Takes no lock: the caller's table_open notices a table dropped since.
 */
const EsStore *
EsStoreGet(void)
{
	Oid			schema;
	Oid			owner;

	if (store_known)
		return &store;

	if (!find_extension("eventstore", &schema, &owner))
		report_not_installed();
	store.schema = schema;
	store.event = find_relation(schema, "es_event");
	store.position_key = find_relation(schema, "es_event_pkey");
	store.id_key = find_relation(schema, "es_event_event_id_key");
	store.stream_key = find_relation(schema, "es_event_stream_id_version_key");
	store.position_seq = find_relation(schema, "es_event_position_seq");
	store.gate = find_relation(schema, "es_gate");
	store.settled = find_relation(schema, "es_settled");
	store.epoch = find_relation(schema, "es_epoch");
	store.event_tag = find_relation(schema, "es_event_tag");
	store.tag_key = find_relation(schema, "es_event_tag_pkey");
	store.retagged = find_relation(schema, "es_retagged");
	store.projection = find_relation(schema, "es_projection");
	store.projection_handler = find_relation(schema, "es_projection_handler");
	store.aggregate = find_relation(schema, "es_aggregate");
	store.evolver = find_relation(schema, "es_evolver");
	store.decider = find_relation(schema, "es_decider");
	store.command = find_relation(schema, "es_command");
	store.snapshot = find_relation(schema, "es_snapshot");
	store.snapshot_cursor = find_relation(schema, "es_snapshot_cursor");
	store.stream = find_relation(schema, "es_stream");
	store.upcaster = find_relation(schema, "es_upcaster");
	store.event_type = find_relation(schema, "es_event_type");
	store.counter = find_relation(schema, "es_counter");
	store.archive_segment = find_relation(schema, "es_archive_segment");
	store.archive_position_key = find_relation(schema, "es_archive_segment_first_position_key");
	store.archive_run = find_relation(schema, "es_archive_run");
	store.archive_key = find_relation(schema, "es_archive_key");
	store.subscription = find_relation(schema, "es_subscription");
	store.subscription_consumer = find_relation(schema, "es_subscription_consumer");
	store.subscription_partition = find_relation(schema, "es_subscription_partition");
	store.subscription_parked = find_relation(schema, "es_subscription_parked");
	store.parked_stream_key = find_relation(schema, "es_subscription_parked_stream_key");
	store.parked_due = find_relation(schema, "es_subscription_parked_due_idx");
	store_known = true;
	return &store;
}

/*
 * Open es_event, and answer the store as it is under that lock: an index that
 * was swapped by REINDEX CONCURRENTLY before is known by its new OID then,
 * and the one before a later swap is not dropped while the lock is held.
 */
Relation
EsEventOpen(const EsStore **known, LOCKMODE mode)
{
	Relation	event = table_open(EsStoreGet()->event, mode);

	*known = EsStoreGet();
	return event;
}

/* The same for es_event_tag and its index. */
Relation
EsEventTagOpen(const EsStore **known, LOCKMODE mode)
{
	Relation	event_tag = table_open(EsStoreGet()->event_tag, mode);

	*known = EsStoreGet();
	return event_tag;
}

/* Is the current user subject to policies on es_event? */
bool
EsRowSecurityApplies(Relation event)
{
	return event->rd_rel->relrowsecurity &&
		check_enable_rls(RelationGetRelid(event), InvalidOid, true) == RLS_ENABLED;
}

/* 0A000 where only the executor could filter. */
void
EsRowSecurityRefuse(Relation event)
{
	if (!EsRowSecurityApplies(event))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("row-level security on \"%s\" applies to role \"%s\"",
					RelationGetRelationName(event),
					GetUserNameFromId(GetUserId(), false)),
			 errhint("Use INSERT INTO or SELECT FROM \"%s\", which honour its policies.",
					 RelationGetRelationName(event))));
}

/*
 * Direct access passes by the executor's checks, so they are made here:
 * 42501 without the privilege, 0A000 where row security would have to filter
 * (only the executor can do that).
 */
void
EsCheckPrivilege(Relation event, AclMode mode)
{
	Oid			relid = RelationGetRelid(event);
	AclResult	result = pg_class_aclcheck(relid, GetUserId(), mode);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_TABLE, RelationGetRelationName(event));
	EsRowSecurityRefuse(event);
}

/* es_event, opened, by one who has the privilege. */
Relation
EsEventOpenFor(AclMode mode)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);

	EsCheckPrivilege(event, mode);
	return event;
}

/*
 * Is the table fed by a subscription of this database, as the snapshot sees it
 * (NULL: as of now)?  If so, which one, and has its first copy ended?
 */
static bool
find_subscription(Oid relid, Snapshot snapshot, Oid *subscription, bool *ready)
{
	Relation	rel = table_open(SubscriptionRelRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, SubscriptionRelSrrelidSrsubidIndexId, true,
							  snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_subscription_rel form = (Form_pg_subscription_rel) GETSTRUCT(tuple);

		*subscription = form->srsubid;
		*ready = form->srsubstate == SUBREL_STATE_READY;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/*
 * Do this store's events come from another server?  Then its lock manager
 * cannot tell which holes are settled; only what the origin wrote down can.
 */
bool
EsFollowsOrigin(const EsStore *store)
{
	Oid			subscription;
	bool		ready;

	return RecoveryInProgress() ||
		find_subscription(store->event, NULL, &subscription, &ready);
}

/*
 * 25006 where the transaction may not write, in the server's words, and what
 * to do about it.  What writes calls it before it does anything else: what
 * the server would say further on, to a lock or a transaction id, differs.
 */
void
EsRequireReadWrite(const char *function)
{
	if (!XactReadOnly || ES_BUG == 132)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			 errmsg("cannot execute %s in a read-only transaction", function),
			 RecoveryInProgress() ?
			 errhint("This server is a standby: connect to the primary.") :
			 errhint("Call it in a transaction that is not read-only.")));
}

/* Does a subscription bring the rows of es_event_tag by itself? */
bool
EsTagsAreReplicated(const EsStore *store)
{
	Oid			subscription;
	bool		ready;

	return find_subscription(store->event_tag, NULL, &subscription, &ready);
}

/*
 * May es_settled be believed?  On a logical replica only when the same
 * subscription feeds both tables and is past their first copies, which are
 * taken at different moments.  The reader's snapshot must see that, too, or
 * it may be missing events that came after the copy.
 */
static bool
settled_is_in_step(const EsStore *store, Snapshot snapshot)
{
	Oid			of_events;
	Oid			of_settled;
	bool		events_ready;
	bool		settled_ready;

	if (!find_subscription(store->event, snapshot, &of_events, &events_ready))
		return true;
	return find_subscription(store->settled, snapshot, &of_settled, &settled_ready) &&
		of_events == of_settled && events_ready && settled_ready;
}

/*
 * The settled position that was written down last, as of the snapshot; 0
 * when none was.  Being read with the reader's own snapshot is what makes it
 * right: every event at or below it committed before the row did.
 */
int64
EsSettledRead(Snapshot snapshot)
{
	const EsStore *known = EsStoreGet();
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	AttrNumber	attno = get_attnum(known->settled, "position");
	int64		position = 0;

	if (!settled_is_in_step(known, snapshot))
		return 0;
	rel = table_open(known->settled, AccessShareLock);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	slot = table_slot_create(rel, NULL);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		position = DatumGetInt64(slot_getattr(slot, attno, &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return position;
}

/*
 * Does the table still exist?  While logical decoding looks back, its catalog
 * entry says only that it once did.
 */
static bool
still_exists(Oid table)
{
	Snapshot	now = RegisterSnapshot(GetNonHistoricCatalogSnapshot(RelationRelationId));
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool		exists;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	scan = systable_beginscan(rel, ClassOidIndexId, true, now, 1, &key);
	exists = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	UnregisterSnapshot(now);
	return exists;
}

/*
 * Visit all rows of a user catalog table as they were, in any order; none if
 * it was dropped since.  Goes by the heap alone: only that is kept up with
 * when the table is rewritten, as TOAST tables and indexes are not.
 */
static void
scan_history(Oid table, EsRowVisitor visit, void *arg)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	LockRelationOid(table, AccessShareLock);
	if (still_exists(table))
	{
		rel = table_open(table, NoLock);
		scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
			if (!visit(rel, tuple, arg))
				break;
		systable_endscan(scan);
		table_close(rel, NoLock);
	}
	UnlockRelationOid(table, AccessShareLock);
}

/*
 * Visit the rows of a table of definitions, in the order of its primary key:
 * all, or those whose text column "key", the first of it, has the value.
 *
 * As with the server's own catalogs, what counts is what is committed by now,
 * at every isolation level: what a session compiles from it is kept beyond
 * the transaction.  No privilege is asked for; what may be shown to whom is
 * the caller's business.  In logical decoding, where only all rows may be
 * asked for, it is what was committed then.
 */
void
EsCatalogScan(Oid table, AttrNumber key, const char *value,
			  EsRowVisitor visit, void *arg)
{
	Relation	rel;
	Snapshot	snapshot;
	ScanKeyData skey;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (HistoricSnapshotActive())
	{
		Assert(value == NULL);
		scan_history(table, visit, arg);
		return;
	}
	rel = table_open(table, AccessShareLock);
	snapshot = RegisterSnapshot(GetCatalogSnapshot(table));
	if (value != NULL)
		ScanKeyEntryInitialize(&skey, 0, key, BTEqualStrategyNumber,
							   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
							   CStringGetTextDatum(value));
	scan = systable_beginscan(rel, EsPrimaryKey(rel), true, snapshot,
							  value == NULL ? 0 : 1, &skey);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		if (!visit(rel, tuple, arg))
			break;
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* A text column of a row, NULL where it is null. */
char *
EsRowText(Relation rel, HeapTuple tuple, AttrNumber column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * Insert a row that the store itself made into one of its tables.  As with
 * reading, no privilege is asked for.  The lock is kept to commit.
 */
void
EsRowInsert(Oid table, Datum *values, bool *nulls)
{
	Relation	rel = table_open(table, RowExclusiveLock);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *target = makeNode(ResultRelInfo);
	TupleTableSlot *slot = table_slot_create(rel, &estate->es_tupleTable);
	int			natts = RelationGetDescr(rel)->natts;

	InitResultRelInfo(target, rel, 1, NULL, 0);
	ExecOpenIndices(target, false);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), 0, NULL);
	list_free(EsInsertIndexTuples(target, slot, estate));
	ExecCloseIndices(target);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
	table_close(rel, NoLock);	/* kept to commit */
}

/* The extension's schema, quoted where necessary. */
const char *
EsSchemaName(void)
{
	return quote_identifier(get_namespace_name(EsStoreGet()->schema));
}

/*
 * Change the extension's tables by SQL, with the caller's privileges, on a
 * cold path.  "%s" in the query stands for the schema.  Answers the number of
 * rows changed.
 */
uint64
EsCatalogWrite(const char *query, int nargs, Oid *types, Datum *values,
			   const char *nulls)
{
	StringInfoData sql;
	const char *schema = EsSchemaName();
	uint64		processed;

	initStringInfo(&sql);
	for (const char *c = query; *c != '\0'; c++)
	{
		if (c[0] == '%' && c[1] == 's')
		{
			appendStringInfoString(&sql, schema);
			c++;
		}
		else
			appendStringInfoChar(&sql, *c);
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(sql.data, nargs, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql.data);
	processed = SPI_processed;
	SPI_finish();
	pfree(sql.data);
	return processed;
}
