/*
 * digest.h: what determines a state, in 16 bytes.
 */
#ifndef ES_DIGEST_H
#define ES_DIGEST_H

#include "postgres.h"

#include "utils/uuid.h"

#include "aggregate.h"

extern void EsAggregateDigest(EsAggregate *aggregate, const char *initial);
extern pg_uuid_t EsAggregateDefinition(const EsAggregate *aggregate);

#endif							/* ES_DIGEST_H */
