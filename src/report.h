/*
 * report.h: the building blocks of es_report()'s page.
 *
 * A page is built as text of plain ASCII, whatever the database's encoding:
 * other characters are written as references by number.  Everything that comes
 * from the store passes EsHtmlText, and nothing else writes it.
 */
#ifndef ES_REPORT_H
#define ES_REPORT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "catalog.h"

/* What a report is made from. */
typedef struct EsReport
{
	StringInfo	out;			/* the page */
	const EsStore *store;
	Relation	event;			/* es_event, open */
	Snapshot	snapshot;
	TimestampTz now;
} EsReport;

/* Colours of series; the last one is for all others together. */
#define ES_REPORT_COLORS 7

/* Events in stretches of time, by series. */
typedef struct EsBuckets
{
	TimestampTz from;			/* where the first stretch begins */
	int64		width;			/* of each, in microseconds */
	int			n;				/* how many */
	double	  (*counts)[ES_REPORT_COLORS];	/* events of each, by series */
	bool		is_sampled;		/* the counts are estimates */
} EsBuckets;

/* text (report_html.c) */
extern void EsHtmlTitle(StringInfo out, const char *value);
extern void EsHtmlText(StringInfo out, const char *value, int max);
extern void EsHtmlCount(StringInfo out, int64 value);
extern void EsHtmlBytes(StringInfo out, int64 bytes);
extern void EsHtmlSeconds(StringInfo out, double seconds);
extern void EsHtmlTime(StringInfo out, TimestampTz at);
extern char *EsHtmlClock(TimestampTz at, int64 precision);
extern void EsHtmlChip(StringInfo out, const char *status);
extern void EsHtmlBar(StringInfo out, double share, int color);

/* tiles: begin, one after the other, end */
extern void EsHtmlTile(StringInfo out, const char *id, const char *label,
					   double value);
extern void EsHtmlTileEnd(StringInfo out, const char *note);

/* charts (report_chart.c) */
extern void EsChartColumns(StringInfo out, const char *id, const EsBuckets *buckets,
						   char *const *names, int nseries);

/* sections */
extern void EsReportStore(EsReport *report);
extern void EsReportStream(EsReport *report, text *stream_id);

extern const char *const EsReportStyle;

#endif							/* ES_REPORT_H */
