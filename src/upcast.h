/*
 * upcast.h: show stored events in the newest form of their type.
 */
#ifndef ES_UPCAST_H
#define ES_UPCAST_H

#include "postgres.h"

#include "executor/tuptable.h"

/* A reader's upcasting; NULL where no upcaster is defined. */
typedef struct EsUpcast EsUpcast;

extern void EsUpcastInit(void);
extern EsUpcast *EsUpcastBegin(TupleDesc event, bool keep_rights);
extern TupleTableSlot *EsUpcastSlot(EsUpcast *upcast, TupleTableSlot *slot);
extern const text *EsUpcastType(const EsUpcast *upcast, TupleTableSlot *slot);
extern void EsUpcastEnd(EsUpcast *upcast);
extern uint64 EsUpcastDigest(void);

#endif							/* ES_UPCAST_H */
