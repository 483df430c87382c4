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
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_subscription_rel.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

#include "catalog.h"

static EsStore store;			/* valid while store_known */
static bool store_known = false;

static void
forget_store(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == store.event ||
		relid == store.gate || relid == store.settled ||
		relid == store.position_seq || relid == store.event_tag ||
		relid == store.retagged)
		store_known = false;
}

void
EsCatalogInit(void)
{
	CacheRegisterRelcacheCallback(forget_store, (Datum) 0);
}

/*
 * Schema and owner of the extension; false where it is not installed.
 */
static bool
find_extension(Oid *schema, Oid *owner)
{
	Oid			extension = get_extension_oid("eventstore", true);
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

/* The role that owns the extension. */
Oid
EsExtensionOwner(void)
{
	Oid			schema;
	Oid			owner;

	if (!find_extension(&schema, &owner))
		report_not_installed();
	return owner;
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

	if (!find_extension(&schema, &owner))
		report_not_installed();
	store.schema = schema;
	store.event = find_relation(schema, "es_event");
	store.position_key = find_relation(schema, "es_event_pkey");
	store.id_key = find_relation(schema, "es_event_event_id_key");
	store.stream_key = find_relation(schema, "es_event_stream_id_version_key");
	store.position_seq = find_relation(schema, "es_event_position_seq");
	store.gate = find_relation(schema, "es_gate");
	store.settled = find_relation(schema, "es_settled");
	store.event_tag = find_relation(schema, "es_event_tag");
	store.tag_key = find_relation(schema, "es_event_tag_pkey");
	store.retagged = find_relation(schema, "es_retagged");
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
	if (event->rd_rel->relrowsecurity &&
		check_enable_rls(relid, InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security on \"%s\" applies to role \"%s\"",
						RelationGetRelationName(event),
						GetUserNameFromId(GetUserId(), false)),
				 errhint("Use INSERT INTO or SELECT FROM \"%s\", which honour its policies.",
						 RelationGetRelationName(event))));
}

/*
 * Is the table fed by a subscription of this database?  If so, which one, and
 * has its first copy ended?
 */
static bool
find_subscription(Oid relid, Oid *subscription, bool *ready)
{
	Relation	rel = table_open(SubscriptionRelRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, SubscriptionRelSrrelidSrsubidIndexId, true,
							  NULL, 1, &key);
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
		find_subscription(store->event, &subscription, &ready);
}

/* Does a subscription bring the rows of es_event_tag by itself? */
bool
EsTagsAreReplicated(const EsStore *store)
{
	Oid			subscription;
	bool		ready;

	return find_subscription(store->event_tag, &subscription, &ready);
}

/*
 * May es_settled be believed?  On a logical replica only when the same
 * subscription feeds both tables and is past their first copies, which are
 * taken at different moments.
 */
static bool
settled_is_in_step(const EsStore *store)
{
	Oid			of_events;
	Oid			of_settled;
	bool		events_ready;
	bool		settled_ready;

	if (!find_subscription(store->event, &of_events, &events_ready))
		return true;
	return find_subscription(store->settled, &of_settled, &settled_ready) &&
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

	if (!settled_is_in_step(known))
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
