/*
 * definition_digest.h: digests of what definitions say.
 */
#ifndef ES_DEFINITION_DIGEST_H
#define ES_DEFINITION_DIGEST_H

#include "postgres.h"

#include "common/cryptohash.h"
#include "nodes/pg_list.h"
#include "utils/uuid.h"

#include "handler.h"

/* A digest under way. */
typedef struct EsDigest
{
	pg_cryptohash_ctx *context;
	bool		is_immutable;	/* so far all expressions are */
	List	   *functions;		/* OIDs of users' functions in them */
} EsDigest;

extern void EsDigestBegin(EsDigest *digest);
extern void EsDigestString(EsDigest *digest, const char *string);
extern void EsDigestExpression(EsDigest *digest, const EsExpression *expression);
extern void EsDigestEnd(EsDigest *digest, pg_uuid_t *result);
extern uint64 EsSettingsDigest(void);
extern void EsDigestMix(pg_uuid_t *digest, int behind, uint64 value);

#endif							/* ES_DEFINITION_DIGEST_H */
