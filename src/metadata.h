/*
 * metadata.h: what the session says of each event that it appends.
 */
#ifndef ES_METADATA_H
#define ES_METADATA_H

#include "postgres.h"

#include "utils/jsonb.h"

extern void EsMetadataInit(void);
extern Jsonb *EsMergeMetadata(Jsonb *metadata);

#endif							/* ES_METADATA_H */
