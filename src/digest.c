/*
 * digest.c: what determines a state, in 16 bytes.
 *
 * A state that was kept, in a snapshot or in a session's memory, is worth
 * something only to the definition that it was folded by.  The digest stands
 * for that definition: two that differ in anything that enters into the state
 * have different ones.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "aggregate.h"
#include "definition_digest.h"
#include "digest.h"

/*
 * What a value of the type is made of, by names that survive a dump.  A
 * stored text of a composite value has no meaning for one with other columns.
 */
static void
digest_type(EsDigest *digest, EsAggregate *aggregate, Oid type, int32 typmod)
{
	Oid			element = get_base_element_type(type);
	Oid			base = getBaseType(OidIsValid(element) ? element : type);
	TupleDesc	desc;

	EsDigestString(digest, format_type_extended(type, typmod,
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
		EsDigestString(digest, NameStr(att->attname));
		digest_type(digest, aggregate, att->atttypid, att->atttypmod);
	}
	EsDigestString(digest, NULL);
}

/* Note on whose rows in the system's tables the definition depends. */
static void
note_functions(EsAggregate *aggregate, List *functions)
{
	ListCell   *cell;

	foreach(cell, functions)
		aggregate->function_hashes =
			lappend_int(aggregate->function_hashes,
						(int) GetSysCacheHashValue1(PROCOID,
													ObjectIdGetDatum(lfirst_oid(cell))));
}

/*
 * The digest of all that determines the state.  The definer's path is in
 * force, so that names come out the same each time.
 */
void
EsAggregateDigest(EsAggregate *aggregate, const char *initial)
{
	EsDigest	digest;

	EsDigestBegin(&digest);
	EsDigestString(&digest, initial);
	EsDigestString(&digest, aggregate->definer.search_path);
	digest_type(&digest, aggregate, aggregate->state_type, -1);
	for (int i = 0; i < aggregate->nevolvers; i++)
	{
		EsDigestString(&digest, aggregate->evolvers[i].event_type);
		EsDigestExpression(&digest, aggregate->evolvers[i].expression);
	}
	EsDigestEnd(&digest, &aggregate->definition);
	aggregate->is_immutable = digest.is_immutable;
	note_functions(aggregate, digest.functions);
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

	if (!aggregate->is_immutable)
		EsDigestMix(&definition, 0, EsSettingsDigest());
	return definition;
}
