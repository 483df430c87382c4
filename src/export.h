/*
 * export.h: events in a form that any server can read.
 */
#ifndef ES_EXPORT_H
#define ES_EXPORT_H

#include "postgres.h"

#include "segment.h"

extern void EsExportDigest(const EsSegmentRow *rows, int nrows, uint8 *digest);

#endif							/* ES_EXPORT_H */
