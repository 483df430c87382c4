/*
 * cloudevent.h: events in the form of CloudEvents 1.0.
 */
#ifndef ES_CLOUDEVENT_H
#define ES_CLOUDEVENT_H

#include "postgres.h"

#include "lib/stringinfo.h"

extern void EsCloudEventInit(void);
extern void EsCheckSource(const char *source);
extern char *EsCloudEventSource(void);
extern void EsCloudEventAppend(StringInfo out, const Datum *values,
							   const bool *nulls, const char *source);
extern void EsJsonAppendText(StringInfo out, const text *value);
extern void EsJsonAppendJsonb(StringInfo out, Datum value);
extern void EsJsonAppendUuid(StringInfo out, Datum value);
extern void EsJsonAppendTime(StringInfo out, Datum value);
extern void EsJsonAppendTextArray(StringInfo out, Datum value);

#endif							/* ES_CLOUDEVENT_H */
