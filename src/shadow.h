/*
 * shadow.h: read tables of the same names, in another schema.
 */
#ifndef ES_SHADOW_H
#define ES_SHADOW_H

#include "projection.h"

/* A projection whose handlers find other tables under the same names. */
typedef struct EsShadow
{
	EsProjection *projection;	/* compiled with the schema first in its path */
	const char *schema;			/* quoted */
	EsDefiner	definer;		/* who owns the tables */
} EsShadow;

extern char *EsShadowSchema(const char *name);
extern void EsShadowLoad(EsShadow *shadow, MemoryContext context,
						 const char *name, const char *schema);
extern void EsShadowCompile(EsShadow *shadow, Relation event);
extern void EsShadowCreateTables(const EsShadow *shadow);
extern void EsShadowDrop(const char *schema);
extern void EsShadowTrack(const EsShadow *shadow);
extern void EsShadowCompare(const EsShadow *shadow);
extern void EsShadowTakeOver(const EsShadow *shadow);
extern char *EsShadowParked(const EsShadow *shadow);
extern char *EsTableName(const char *qualified);
extern void EsExecute(const char *sql);

#endif							/* ES_SHADOW_H */
