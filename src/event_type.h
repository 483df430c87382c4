/*
 * event_type.h: what is declared of event types, at append.
 */
#ifndef ES_EVENT_TYPE_H
#define ES_EVENT_TYPE_H

#include "postgres.h"

#include "executor/tuptable.h"

#include "append.h"

extern void EsEventTypeInit(void);
extern bool EsEventTypesDeclared(void);
extern bool EsEventTypesGiveTags(void);
extern void EsEventTypesAddTags(EsNewEvent *events, int nevents);
extern void EsEventTypesApply(EsAppend *append);
extern void EsEventTypeCheckSlot(TupleTableSlot *slot);

#endif							/* ES_EVENT_TYPE_H */
