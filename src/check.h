/*
 * check.h: what the rooms that check something have in common.
 */
#ifndef ES_CHECK_H
#define ES_CHECK_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "catalog.h"

typedef enum EsCheckStatus
{
	ES_CHECK_OK,
	ES_CHECK_WARNING,			/* somebody should look after it */
	ES_CHECK_ERROR				/* the store is not what it promises to be */
} EsCheckStatus;

/* One call of es_check(). */
typedef struct EsCheck
{
	const EsStore *store;
	Relation	event;			/* es_event, open */
	Snapshot	snapshot;		/* under which everything is read */
	Tuplestorestate *rows;		/* where the results go */
	TupleDesc	desc;			/* of a result */
	TimestampTz deadline;		/* DT_NOEND: none */
	bool		late;			/* it has passed, before all was done */
	int64		steps;			/* of the phase so far */
} EsCheck;

extern void EsCheckPut(EsCheck *check, const char *name, EsCheckStatus status,
					   const char *hint, const char *format,...)
			pg_attribute_printf(5, 6);
extern void EsCheckUnfinished(EsCheck *check, const char *name, int64 done,
							  const char *what);
extern void EsCheckPhase(EsCheck *check, const char *phase);
extern bool EsCheckGoOn(EsCheck *check);

/* the checks, one function a room */
extern void EsCheckSchema(EsCheck *check);
extern void EsCheckHealth(EsCheck *check);
extern void EsCheckEvents(EsCheck *check);
extern void EsCheckIndexes(EsCheck *check);

#endif							/* ES_CHECK_H */
