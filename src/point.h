/*
 * point.h: places where a test can stop a backend, and seeded bugs.
 *
 * Both are compiled away in an ordinary build.  With -DES_POINTS a backend
 * that reaches the point named by eventstore.point waits until nobody holds
 * the session advisory lock ES_POINT_KEY.  -DES_BUG=n breaks the protocol in
 * the n-th known way; `make mutants` shows that the tests notice.
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
