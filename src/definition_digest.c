/*
 * definition_digest.c: digests of what definitions say.
 *
 * Two definitions that differ in anything that enters into their results have
 * different digests: also in the users' functions that they call, as far as
 * they call them by themselves, and if they are not immutable, in the
 * settings of the session.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"

#include "definition_digest.h"

void
EsDigestBegin(EsDigest *digest)
{
	digest->context = pg_cryptohash_create(PG_SHA256);
	digest->is_immutable = true;
	digest->functions = NIL;
	if (digest->context == NULL || pg_cryptohash_init(digest->context) < 0)
		elog(ERROR, "could not compute a digest");
}

/* Add a string, or that there is none. */
void
EsDigestString(EsDigest *digest, const char *string)
{
	const char *bytes = string == NULL ? "" : string;
	uint8		isnull = string == NULL;

	if (pg_cryptohash_update(digest->context, &isnull, 1) < 0 ||
		pg_cryptohash_update(digest->context, (const uint8 *) bytes,
							 strlen(bytes) + 1) < 0)
		elog(ERROR, "could not compute a digest");
}

/*
 * Add an expression and the users' functions that it calls.  The definer's
 * path is in force, so that names come out the same each time.
 */
void
EsDigestExpression(EsDigest *digest, const EsExpression *expression)
{
	ListCell   *cell;

	EsDigestString(digest, expression->text.sql);
	foreach(cell, expression->functions)
	{
		Datum		oid = ObjectIdGetDatum(lfirst_oid(cell));

		digest->functions = lappend_oid(digest->functions, lfirst_oid(cell));
		EsDigestString(digest,
					   TextDatumGetCString(DirectFunctionCall1(pg_get_functiondef, oid)));
	}
	if (!expression->is_immutable)
		digest->is_immutable = false;
}

/* The first 16 bytes of the SHA-256 of all that was added. */
void
EsDigestEnd(EsDigest *digest, pg_uuid_t *result)
{
	uint8		sum[PG_SHA256_DIGEST_LENGTH];

	if (pg_cryptohash_final(digest->context, sum, sizeof(sum)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(digest->context);
	memcpy(result->data, sum, UUID_LEN);
}

/* Of the settings on which the value of a stable expression depends. */
uint64
EsSettingsDigest(void)
{
	int			settings[] = {DateStyle, DateOrder, IntervalStyle, extra_float_digits};
	const char *zone = pg_get_timezone_name(session_timezone);

	return hash_bytes_extended((const unsigned char *) settings, sizeof(settings),
							   hash_bytes((const unsigned char *) zone, strlen(zone)));
}

/* Mix eight bytes into a digest, behind so many others. */
void
EsDigestMix(pg_uuid_t *digest, int behind, uint64 value)
{
	for (size_t i = 0; i < sizeof(value); i++)
		digest->data[behind + i] ^= (unsigned char) (value >> (8 * i));
}
