/*
 * log.h: the global order.  The essay is in log.c.
 */
#ifndef ES_LOG_H
#define ES_LOG_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "storage/lock.h"
#include "fmgr.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "catalog.h"

/* An ordered walk along the log; see EsLogReaderBegin. */
typedef struct EsLogReader EsLogReader;

extern void EsAnnounce(const EsStore *store);
extern LocalTransactionId EsAnnouncedLxid(void);
extern int64 EsAnnouncedBound(void);
extern int64 EsDrawPosition(const EsStore *store);
extern int64 EsLastDrawn(const EsStore *store, XLogRecPtr *lsn);
extern int64 EsSettledNow(const EsStore *store, XLogRecPtr *lsn);
extern int64 EsLowestAnnouncedBy(const VirtualTransactionId *holders, int n);
extern int64 EsSettledForSnapshot(Relation event, const EsStore *store,
								  Snapshot snapshot);
extern int64 EsSettledByHoles(Relation event, const EsStore *store,
							  Snapshot snapshot);
extern int64 EsSettledPosition(Relation event, const EsStore *store);
extern void EsNoteDurability(TupleTableSlot *slot, XLogRecPtr flushed,
							 XLogRecPtr *needed);
extern int64 EsPositionBy(Relation event, const EsStore *store,
						  Snapshot snapshot, TimestampTz at);
extern void EsPassPosition(const EsStore *store, int64 position);

extern Datum es_position_at(PG_FUNCTION_ARGS);

extern Snapshot EsLogSnapshot(void);
extern EsLogReader *EsLogReaderBegin(Relation event, const EsStore *store,
									 Snapshot snapshot, int64 from_position);
extern TupleTableSlot *EsLogReaderNext(EsLogReader *reader);
extern int64 EsLogReaderPosition(const EsLogReader *reader);
extern void EsLogReaderEnd(EsLogReader *reader);

#endif							/* ES_LOG_H */
