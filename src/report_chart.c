/*
 * report_chart.c: columns over time.
 *
 * Only the columns are drawn; they may be stretched to any width.  All that is
 * to be read, titles, ticks and legend, is text of the page, so that it keeps
 * its size on a narrow one.  The figures themselves follow in a table that
 * opens on demand.
 */
#include "postgres.h"

#include <math.h>

#include "report.h"

#define HEIGHT 160				/* of the drawing, in its own units */
#define SLOT 10					/* of a column and the gap beside it */
#define GAP 2

static double
column_total(const EsBuckets *buckets, int i)
{
	double		total = 0;

	for (int s = 0; s < ES_REPORT_COLORS; s++)
		total += buckets->counts[i][s];
	return total;
}

/* The smallest number at or above the value that is round, and so is its half. */
static double
round_up(double value)
{
	static const double round[] = {1.2, 1.6, 2, 3, 4, 6, 8};
	double		power;

	if (value <= 2)
		return 2;
	power = pow(10, floor(log10(value)));
	for (size_t i = 0; i < lengthof(round); i++)
		if (value <= round[i] * power && (power > 1 || round[i] == 4 || round[i] == 6 || round[i] == 8))
			return round[i] * power;
	return 10 * power;
}

/* A count as an axis shows it. */
static void
put_tick(StringInfo out, double value)
{
	if (value >= 1000000)
		appendStringInfo(out, "%.3g&nbsp;M", value / 1000000);
	else if (value >= 10000)
		appendStringInfo(out, "%.3gk", value / 1000);
	else if (value == rint(value))
		EsHtmlCount(out, (int64) value);
	else
		appendStringInfo(out, "%.1f", value);
}

static void
put_column(StringInfo out, const EsBuckets *buckets, int i, double scale,
		   char *const *names, int nseries)
{
	double		top = HEIGHT;

	appendStringInfoString(out, "<g><title>");
	appendStringInfoString(out, EsHtmlClock(buckets->from + i * buckets->width, buckets->width));
	appendStringInfoString(out, ": ");
	EsHtmlCount(out, (int64) rint(column_total(buckets, i)));
	appendStringInfoString(out, " events</title>");
	appendStringInfo(out, "<rect class=hit x=%d width=%d height=%d />", i * SLOT, SLOT, HEIGHT);
	for (int s = 0; s < nseries; s++)
	{
		double		height = buckets->counts[i][s] * scale;

		if (height <= 0)
			continue;
		height = Max(height, 1);
		top -= height;
		appendStringInfo(out, "<rect class=c%d x=%d y=\"%.2f\" width=%d height=\"%.2f\" />",
						 s, i * SLOT + GAP / 2, Max(top, 0), SLOT - GAP, height);
	}
	appendStringInfoString(out, "</g>");
}

static void
put_legend(StringInfo out, char *const *names, int nseries)
{
	if (nseries < 2)
		return;
	appendStringInfoString(out, "<ul class=legend>");
	for (int s = 0; s < nseries; s++)
	{
		appendStringInfo(out, "<li><i class=c%d></i>", s);
		EsHtmlText(out, names[s], 60);
	}
	appendStringInfoString(out, "</ul>");
}

/* The figures, for whoever cannot see the columns or wants them exactly. */
static void
put_table(StringInfo out, const EsBuckets *buckets, char *const *names, int nseries)
{
	appendStringInfoString(out, "<details><summary>Figures</summary><div class=scroll><table class=figures><thead><tr><th>From");
	for (int s = 0; s < nseries; s++)
	{
		appendStringInfoString(out, "<th class=n>");
		EsHtmlText(out, names[s], 60);
	}
	appendStringInfoString(out, "<th class=n>All</thead><tbody>");
	for (int i = 0; i < buckets->n; i++)
	{
		appendStringInfoString(out, "<tr><th>");
		EsHtmlTime(out, buckets->from + i * buckets->width);
		for (int s = 0; s <= nseries; s++)
		{
			double		value = s < nseries ? buckets->counts[i][s] : column_total(buckets, i);

			appendStringInfo(out, "<td class=n data-value=%.0f>", rint(value));
			EsHtmlCount(out, (int64) rint(value));
		}
	}
	appendStringInfoString(out, "</tbody></table></div></details>\n");
}

/* Some moments along the time axis; the narrower the page the fewer are seen. */
static void
put_time_axis(StringInfo out, const EsBuckets *buckets)
{
	appendStringInfoString(out, "<div class=axis>");
	for (int i = 0; i <= 4; i++)
		appendStringInfo(out, "<span%s>%s</span>", i % 2 == 1 ? " class=wide" : "",
						 EsHtmlClock(buckets->from + buckets->width * buckets->n * i / 4,
									 buckets->width));
	appendStringInfoString(out, "</div>");
}

/* A chart of stacked columns, with ticks, legend and figures. */
void
EsChartColumns(StringInfo out, const char *id, const EsBuckets *buckets,
			   char *const *names, int nseries)
{
	double		highest = 0;
	double		top;

	for (int i = 0; i < buckets->n; i++)
		highest = Max(highest, column_total(buckets, i));
	top = round_up(highest);
	put_legend(out, names, nseries);
	appendStringInfo(out, "<div class=chart id=\"%s\"><div class=ticks>", id);
	for (int i = 2; i >= 0; i--)
	{
		appendStringInfoString(out, "<span>");
		put_tick(out, top * i / 2);
		appendStringInfoString(out, "</span>");
	}
	appendStringInfo(out, "</div><div class=plot><svg viewBox=\"0 0 %d %d\" preserveAspectRatio=none role=img aria-label=\"Columns of events over time; the figures follow\">",
					 buckets->n * SLOT, HEIGHT);
	for (int i = 0; i < buckets->n; i++)
		put_column(out, buckets, i, HEIGHT / top, names, nseries);
	appendStringInfoString(out, "</svg></div></div>");
	put_time_axis(out, buckets);
	put_table(out, buckets, names, nseries);
}
