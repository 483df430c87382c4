/*
 * digest.c: what determines a state, in 16 bytes.
 *
 * A state that was kept, in a snapshot or in a session's memory, is worth
 * something only to the definition that it was folded by.  The digest stands
 * for that definition: two that differ in anything that enters into the state
 * have different ones.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "aggregate.h"
#include "digest.h"

static void
digest_string(pg_cryptohash_ctx *digest, const char *string)
{
	const char *bytes = string == NULL ? "" : string;
	uint8		isnull = string == NULL;

	if (pg_cryptohash_update(digest, &isnull, 1) < 0 ||
		pg_cryptohash_update(digest, (const uint8 *) bytes, strlen(bytes) + 1) < 0)
		elog(ERROR, "could not compute a digest");
}

/*
 * What a value of the type is made of, by names that survive a dump.  A
 * stored text of a composite value has no meaning for one with other columns.
 */
static void
digest_type(pg_cryptohash_ctx *digest, EsAggregate *aggregate, Oid type,
			int32 typmod)
{
	Oid			element = get_base_element_type(type);
	Oid			base = getBaseType(OidIsValid(element) ? element : type);
	TupleDesc	desc;

	digest_string(digest, format_type_extended(type, typmod,
											   FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	if (!type_is_rowtype(base) || base == RECORDOID)
		return;
	aggregate->relations = lappend_oid(aggregate->relations,
									   get_typ_typrelid(base));
	desc = lookup_rowtype_tupdesc_copy(base, -1);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		digest_string(digest, NameStr(att->attname));
		digest_type(digest, aggregate, att->atttypid, att->atttypmod);
	}
	digest_string(digest, NULL);
}

/* An expression and the users' functions that it calls. */
static void
digest_expression(pg_cryptohash_ctx *digest, EsAggregate *aggregate,
				  const EsExpression *expression)
{
	ListCell   *cell;

	digest_string(digest, expression->text.sql);
	foreach(cell, expression->functions)
	{
		Datum		oid = ObjectIdGetDatum(lfirst_oid(cell));

		aggregate->function_hashes =
			lappend_int(aggregate->function_hashes,
						(int) GetSysCacheHashValue1(PROCOID, oid));
		digest_string(digest,
					  TextDatumGetCString(DirectFunctionCall1(pg_get_functiondef, oid)));
	}
	if (!expression->is_immutable)
		aggregate->is_immutable = false;
}

/*
 * The first 16 bytes of the SHA-256 of all that determines the state.  The
 * definer's path is in force, so that names come out the same each time.
 */
void
EsAggregateDigest(EsAggregate *aggregate, const char *initial)
{
	pg_cryptohash_ctx *digest = pg_cryptohash_create(PG_SHA256);
	uint8		sum[PG_SHA256_DIGEST_LENGTH];

	if (digest == NULL || pg_cryptohash_init(digest) < 0)
		elog(ERROR, "could not compute a digest");
	digest_string(digest, initial);
	digest_string(digest, aggregate->definer.search_path);
	digest_type(digest, aggregate, aggregate->state_type, -1);
	aggregate->is_immutable = true;
	for (int i = 0; i < aggregate->nevolvers; i++)
	{
		digest_string(digest, aggregate->evolvers[i].event_type);
		digest_expression(digest, aggregate, aggregate->evolvers[i].expression);
	}
	if (pg_cryptohash_final(digest, sum, sizeof(sum)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(digest);
	memcpy(aggregate->definition.data, sum, UUID_LEN);
}

/*
 * The digest for this session.  Where an expression reads a time or an
 * interval, the settings of the session enter into the state, so it shares
 * snapshots with those sessions only that have the same.
 */
pg_uuid_t
EsAggregateDefinition(const EsAggregate *aggregate)
{
	pg_uuid_t	definition = aggregate->definition;
	int			settings[] = {DateStyle, DateOrder, IntervalStyle, extra_float_digits};
	uint64		hash;
	const char *zone;

	if (aggregate->is_immutable)
		return definition;
	zone = pg_get_timezone_name(session_timezone);
	hash = hash_bytes_extended((const unsigned char *) settings, sizeof(settings),
							   hash_bytes((const unsigned char *) zone, strlen(zone)));
	for (size_t i = 0; i < sizeof(hash); i++)
		definition.data[i] ^= (unsigned char) (hash >> (8 * i));
	return definition;
}
