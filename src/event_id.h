/*
 * event_id.h: ids of new events, and appends that are repeated by their ids.
 */
#ifndef ES_EVENT_ID_H
#define ES_EVENT_ID_H

#include "postgres.h"

#include "append.h"
#include "compat.h"

extern void EsMakeEventId(EsNewEvent *event, int nth);
extern void EsAssignIds(EsAppend *append);
extern bool EsAppendIsRetry(Relation event, const EsStore *store,
							EsAppend *append);
extern int64 EsLastArchived(void);
extern void EsCheckIdArchived(const pg_uuid_t *id, int64 after_segment);
extern void EsAppendCheckArchived(const EsAppend *append);
pg_noreturn extern void EsReportIdUsed(const EsNewEvent *event, const char *detail);

#endif							/* ES_EVENT_ID_H */
