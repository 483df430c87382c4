/*
 * point.h: places where a test can stop a backend, and seeded bugs.
 *
 * Both are compiled away in an ordinary build.  With -DES_POINTS the setting
 * eventstore.point lists places, "name" or "name:k" for the k-th visit only.
 * A backend that reaches the i-th place of its list, from 0, waits until
 * nobody holds the advisory lock ES_POINT_KEY + i.  The places:
 *
 *		before-draw		before a position is drawn
 *		after-draw		all positions of an append drawn, none inserted
 *		reader-at-hole	a reader met a hole and has not asked yet
 *		boundary-ask	a boundary is to be read, nothing was asked yet
 *		boundary-asked	and who may be appending to it is known
 *		lease-loaded	a consumer who fetches has read who holds what
 *		settled-between	between the two looks at the settled position
 *		rows-inserted	a part of an append is in the table
 *		appended		all of it is, tags included
 *		handlers-run	a projection's batch was run, its checkpoint not moved
 *		checkpoint-saved	and now it was
 *		archive-written	a segment is written, its events not deleted
 *		archive-deleted	and now they are
 *
 * -DES_BUG=n breaks the store in the n-th known way; test/mutants.txt lists
 * them, and `make mutants` shows that the tests notice.
 */
#ifndef ES_POINT_H
#define ES_POINT_H

#define ES_POINT_KEY 5015

#ifdef ES_POINTS
extern void EsPointInit(void);
extern void EsPoint(const char *name);
#else
#define EsPointInit() ((void) 0)
#define EsPoint(name) ((void) 0)
#endif

#ifndef ES_BUG
#define ES_BUG 0
#endif

#endif							/* ES_POINT_H */
