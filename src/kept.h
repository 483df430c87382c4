/*
 * kept.h: states that a session keeps between commands.
 */
#ifndef ES_KEPT_H
#define ES_KEPT_H

#include "postgres.h"

#include "fold.h"

extern void EsKeptInit(void);
extern void EsKeptFold(EsFold *fold);
extern void EsKeptNoteSnapshot(const EsFold *fold, int64 version);

#endif							/* ES_KEPT_H */
