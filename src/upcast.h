/*
 * upcast.h: show stored events in the newest form of their type.
 */
#ifndef ES_UPCAST_H
#define ES_UPCAST_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/uuid.h"

/* A reader's upcasting; NULL where no upcaster is defined. */
typedef struct EsUpcast EsUpcast;

/* Do events that are shown under this type concern somebody? */
typedef bool (*EsUpcastConcerns) (const text *event_type, void *arg);

extern void EsUpcastInit(void);
extern EsUpcast *EsUpcastBegin(TupleDesc event, bool keep_rights);
extern TupleTableSlot *EsUpcastSlot(EsUpcast *upcast, TupleTableSlot *slot);
extern const text *EsUpcastType(const EsUpcast *upcast, TupleTableSlot *slot);
extern void EsUpcastEnd(EsUpcast *upcast);
extern uint64 EsUpcastGeneration(void);
extern bool EsUpcastDigest(EsUpcastConcerns concerns, void *arg,
						   pg_uuid_t *result);

#endif							/* ES_UPCAST_H */
