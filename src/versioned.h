/*
 * versioned.h: definitions for versions of event types, as a session keeps
 * them.
 */
#ifndef ES_VERSIONED_H
#define ES_VERSIONED_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/rel.h"

#include "catalog.h"
#include "definition.h"
#include "handler.h"

/* A definition for one version; the beginning of a room's own struct. */
typedef struct EsVersioned
{
	int			index;			/* in the list of all */
	text	   *event_type;
	int32		version;
	char	   *sql;			/* the expression; NULL: none */
	EsDefiner	definer;
	EsExpression *expression;	/* NULL: none, or not compiled yet */
	struct EsVersioned *older;	/* the next older version, or NULL */
} EsVersioned;

/* Where definitions of a kind are, and what they are like. */
typedef struct EsVersionedKind
{
	const char *name;			/* of the memory context */
	Size		size;			/* of the room's own struct */
	size_t		table;			/* place of the table's OID in EsStore */
	AttrNumber	sql;			/* columns of the expression, the owner and */
	AttrNumber	owner;			/* the path; the first two are type and version */
	AttrNumber	search_path;
	/* read what else is in a row; NULL: nothing */
	void		(*read_rest) (Relation rel, HeapTuple tuple, EsVersioned *into);
} EsVersionedKind;

/* All definitions of a kind, as they were at one moment. */
typedef struct EsVersionedSet
{
	MemoryContext context;		/* of all this; NULL: never read */
	uint64		generation;		/* of the rows it was made from */
	List	   *all;			/* by type and version */
	uint32		mask;			/* of the table below */
	EsVersioned **by_hash;		/* newest versions, open addressing */
	EsScope    *scope;			/* event */
} EsVersionedSet;

/* What a session knows of a kind. */
typedef struct EsVersionedCache
{
	const EsVersionedKind *kind;
	EsVersionedSet current;
	uint64		generation;		/* raised when anything may have changed */
	Oid			table;			/* once it was read */
	Oid			event;			/* es_event, likewise */
} EsVersionedCache;

extern void EsVersionedInit(EsVersionedCache *cache);
extern bool EsVersionedIsStale(const EsVersionedCache *cache);
extern void EsVersionedRead(EsVersionedCache *cache);
extern EsVersioned *EsVersionedNewest(const EsVersionedSet *set,
									  const text *event_type);
extern EsVersioned *EsVersionedFind(const EsVersionedSet *set,
									const text *event_type, int32 version);

#endif							/* ES_VERSIONED_H */
