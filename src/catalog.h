/*
 * catalog.h: the door to the extension's own tables.
 */
#ifndef ES_CATALOG_H
#define ES_CATALOG_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "storage/lockdefs.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* Columns of es_event, by attribute number; the table's definition rules. */
typedef enum EsEventColumn
{
	ES_EVENT_POSITION = 1,
	ES_EVENT_VERSION,
	ES_EVENT_RECORDED_AT,
	ES_EVENT_EVENT_ID,
	ES_EVENT_TYPE_VERSION,
	ES_EVENT_STREAM_ID,
	ES_EVENT_EVENT_TYPE,
	ES_EVENT_DATA,
	ES_EVENT_METADATA,
	ES_EVENT_TAGS
} EsEventColumn;

#define ES_EVENT_NATTS ES_EVENT_TAGS

/* Columns of es_event_tag. */
typedef enum EsEventTagColumn
{
	ES_EVENT_TAG_TAG = 1,
	ES_EVENT_TAG_POSITION,
	ES_EVENT_TAG_EVENT_TYPE
} EsEventTagColumn;

/* Columns of es_retagged. */
typedef enum EsRetaggedColumn
{
	ES_RETAGGED_POSITION = 1,
	ES_RETAGGED_TAGS
} EsRetaggedColumn;

/* Where this database keeps its store. */
typedef struct EsStore
{
	Oid			schema;			/* namespace of the extension */
	Oid			event;			/* es_event */
	Oid			position_key;	/* its index (position) */
	Oid			id_key;			/* its index (event_id) */
	Oid			stream_key;		/* its index (stream_id, version) */
	Oid			position_seq;	/* the sequence that hands out positions */
	Oid			gate;			/* es_gate, the lock object for all appends */
	Oid			settled;		/* es_settled, the written-down position */
	Oid			epoch;			/* es_epoch */
	Oid			event_tag;		/* es_event_tag */
	Oid			tag_key;		/* its index (tag, position) */
	Oid			retagged;		/* es_retagged */
	Oid			projection;		/* es_projection */
	Oid			projection_handler; /* es_projection_handler */
	Oid			aggregate;		/* es_aggregate */
	Oid			evolver;		/* es_evolver */
	Oid			decider;		/* es_decider */
	Oid			command;		/* es_command */
	Oid			snapshot;		/* es_snapshot */
	Oid			snapshot_cursor;	/* es_snapshot_cursor */
	Oid			event_type;		/* es_event_type */
	Oid			stream;			/* es_stream */
	Oid			upcaster;		/* es_upcaster */
	Oid			counter;		/* es_counter, under which the store counts */
	Oid			archive_segment;	/* es_archive_segment */
	Oid			archive_position_key;	/* its index (first_position) */
	Oid			archive_run;	/* es_archive_run */
	Oid			archive_key;	/* es_archive_key */
	Oid			subscription;	/* es_subscription */
	Oid			subscription_consumer;	/* es_subscription_consumer */
	Oid			subscription_partition; /* es_subscription_partition */
	Oid			subscription_parked;	/* es_subscription_parked */
	Oid			parked_stream_key;	/* its index (subscription, stream_id, position) */
	Oid			parked_due;		/* its index (subscription, due_at) */
} EsStore;

/* What is done with each row of a scan; false ends it. */
typedef bool (*EsRowVisitor) (Relation rel, HeapTuple tuple, void *arg);

extern void EsCatalogInit(void);
extern void EsOnRelationChange(RelcacheCallbackFunction function, Datum arg);
extern const EsStore *EsStoreGet(void);
extern Oid	EsGateOid(void);
extern bool EsIsInstalled(void);
extern Relation EsEventOpen(const EsStore **store, LOCKMODE mode);
extern Relation EsEventTagOpen(const EsStore **store, LOCKMODE mode);
extern Oid	EsExtensionOwner(void);
extern Oid	EsExtensionSchema(const char *name);
extern bool EsRowSecurityApplies(Relation event);
extern void EsRowSecurityRefuse(Relation event);
extern void EsCheckPrivilege(Relation event, AclMode mode);
extern Relation EsEventOpenFor(AclMode mode);
extern bool EsFollowsOrigin(const EsStore *store);
extern void EsRequireReadWrite(const char *function);
extern bool EsTagsAreReplicated(const EsStore *store);
extern int64 EsSettledRead(Snapshot snapshot);
extern void EsCatalogScan(Oid table, AttrNumber key, const char *value,
						  EsRowVisitor visit, void *arg);
extern char *EsRowText(Relation rel, HeapTuple tuple, AttrNumber column);
extern const char *EsSchemaName(void);
extern void EsRowInsert(Oid table, Datum *values, bool *nulls);
extern uint64 EsCatalogWrite(const char *query, int nargs, Oid *types,
							 Datum *values, const char *nulls);

#endif							/* ES_CATALOG_H */
