/*
 * report_html.c: text, numbers and small marks for a page.
 *
 * Names and payloads are anybody's.  Whatever means something to HTML is
 * written as a reference, so it means itself; control characters are shown as
 * the pictures that Unicode has for them, and characters that turn the
 * direction of writing, or cannot be seen, by their numbers: a name can look
 * like nothing but itself.
 */
#include "postgres.h"

#include <math.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "report.h"

/* Does the character show nothing, or change how others are shown? */
static bool
is_invisible(pg_wchar c)
{
	return c == 0x00AD || c == 0x061C || c == 0x180E || c == 0xFEFF ||
		(c >= 0x0080 && c <= 0x009F) ||
		(c >= 0x200B && c <= 0x200F) ||
		(c >= 0x2028 && c <= 0x202E) ||
		(c >= 0x2060 && c <= 0x206F) ||
		(c >= 0xFFF0 && c <= 0xFFFB) ||
		(c >= 0xE0000 && c <= 0xE007F);
}

static void
put_character(StringInfo out, pg_wchar c)
{
	if (c == '\n' || c == '\t')
		appendStringInfoChar(out, (char) c);
	else if (c < 0x20)
		appendStringInfo(out, "&#x%X;", 0x2400 + c);
	else if (c == 0x7F)
		appendStringInfoString(out, "&#x2421;");
	else if (is_invisible(c))
		appendStringInfo(out, "<i class=u>U+%04X</i>", c);
	else if (c >= 0x80 || strchr("&<>\"'`", (int) c) != NULL)
		appendStringInfo(out, "&#%u;", c);
	else
		appendStringInfoChar(out, (char) c);
}

/* Text from the store where there can be no markup: what cannot be seen goes. */
void
EsHtmlTitle(StringInfo out, const char *value)
{
	char	   *utf8 = pg_server_to_any(value, strlen(value), PG_UTF8);
	int			shown = 0;
	int			n;

	for (const unsigned char *c = (unsigned char *) utf8; *c != '\0' && shown < 80; c += n)
	{
		n = pg_encoding_mblen(PG_UTF8, (const char *) c);
		if (n > (int) strlen((const char *) c) || !pg_utf8_islegal(c, n))
			n = 1;
		else if (!is_invisible(utf8_to_unicode(c)))
		{
			put_character(out, utf8_to_unicode(c));
			shown++;
		}
	}
	if (utf8 != value)
		pfree(utf8);
}

/*
 * Text from the store, at most so many bytes of it, isolated from its
 * surroundings.  max 0: all.
 */
void
EsHtmlText(StringInfo out, const char *value, int max)
{
	char	   *utf8 = pg_server_to_any(value, strlen(value), PG_UTF8);
	int			len = strlen(utf8);
	int			left = max > 0 && len > max ? pg_encoding_mbcliplen(PG_UTF8, utf8, len, max) : len;

	appendStringInfoString(out, "<bdi>");
	for (const unsigned char *c = (unsigned char *) utf8; left > 0;)
	{
		int			n = pg_encoding_mblen(PG_UTF8, (const char *) c);

		if (n > left || !pg_utf8_islegal(c, n))
		{
			appendStringInfo(out, "<i class=u>%02X</i>", *c);
			n = 1;
		}
		else
			put_character(out, utf8_to_unicode(c));
		c += n;
		left -= n;
	}
	if (max > 0 && len > max)
		appendStringInfo(out, "&hellip; <i class=u>%d bytes</i>", len);
	appendStringInfoString(out, "</bdi>");
	if (utf8 != value)
		pfree(utf8);
}

/* A whole number, with commas. */
void
EsHtmlCount(StringInfo out, int64 value)
{
	char		digits[32];
	int			len;

	snprintf(digits, sizeof(digits), INT64_FORMAT, value);
	len = strlen(digits);
	for (int i = 0; i < len; i++)
	{
		if (i > 0 && (len - i) % 3 == 0 && digits[i - 1] != '-')
			appendStringInfoChar(out, ',');
		appendStringInfoChar(out, digits[i]);
	}
}

/* A number with its unit, of three digits or so. */
static void
put_short(StringInfo out, double value, const char *unit)
{
	appendStringInfo(out, value < 9.95 && value != rint(value) ? "%.1f&nbsp;%s" : "%.0f&nbsp;%s",
					 value, unit);
}

void
EsHtmlBytes(StringInfo out, int64 bytes)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	double		value = bytes;
	size_t		unit = 0;

	while (value >= 1024 && unit < lengthof(units) - 1)
	{
		value /= 1024;
		unit++;
	}
	put_short(out, value, units[unit]);
}

void
EsHtmlSeconds(StringInfo out, double seconds)
{
	if (seconds == 0)
		appendStringInfoString(out, "0&nbsp;s");
	else if (seconds < 1)
		put_short(out, Max(rint(seconds * 1000), 1), "ms");
	else if (seconds < 120)
		put_short(out, seconds, "s");
	else if (seconds < 7200)
		put_short(out, seconds / 60, "min");
	else if (seconds < 172800)
		put_short(out, seconds / 3600, "h");
	else
		put_short(out, seconds / 86400, "days");
}

static bool
break_down(TimestampTz at, struct pg_tm *tm, fsec_t *fsec, int *zone)
{
	const char *name;

	return !TIMESTAMP_NOT_FINITE(at) && timestamp2tm(at, zone, tm, fsec, &name, NULL) == 0;
}

/* A time for people, and in full for who points at it. */
void
EsHtmlTime(StringInfo out, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			zone;
	char		full[MAXDATELEN + 1];

	if (!break_down(at, &tm, &fsec, &zone))
	{
		appendStringInfoString(out, "&ndash;");
		return;
	}
	EncodeDateTime(&tm, fsec, true, zone, NULL, USE_ISO_DATES, full);
	appendStringInfo(out, "<time title=\"%s\">%04d-%02d-%02d <b>%02d:%02d:%02d</b></time>", full,
					 tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* The same for an axis: as much of it as tells neighbours apart. */
char *
EsHtmlClock(TimestampTz at, int64 precision)
{
	static const char *const months[] = {
		"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
	};
	struct pg_tm tm;
	fsec_t		fsec;
	int			zone;

	if (!break_down(at, &tm, &fsec, &zone))
		return "";
	if (precision < USECS_PER_MINUTE)
		return psprintf("%02d:%02d:%02d", tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (precision <= USECS_PER_HOUR)
		return psprintf("%02d:%02d", tm.tm_hour, tm.tm_min);
	if (precision < USECS_PER_DAY)
		return psprintf("%s %d, %02d:%02d", months[tm.tm_mon - 1], tm.tm_mday, tm.tm_hour, tm.tm_min);
	return psprintf("%s %d, %d", months[tm.tm_mon - 1], tm.tm_mday, tm.tm_year);
}

/* A status as a word with a mark, in its colour. */
void
EsHtmlChip(StringInfo out, const char *status)
{
	static const char *const good[] = {"ok", "live"};
	static const char *const bad[] = {"error", "stopped", "tombstoned"};
	const char *class = "warn";
	const char *mark = "!";

	for (size_t i = 0; i < lengthof(good); i++)
		if (strcmp(status, good[i]) == 0)
		{
			class = "good";
			mark = "&#10003;";
		}
	for (size_t i = 0; i < lengthof(bad); i++)
		if (strcmp(status, bad[i]) == 0)
		{
			class = "bad";
			mark = "&#10005;";
		}
	appendStringInfo(out, "<span class=\"chip %s\"><b>%s</b> ", class, mark);
	EsHtmlText(out, status, 40);
	appendStringInfoString(out, "</span>");
}

/* A bar of a share between 0 and 1; color -1: no series'. */
void
EsHtmlBar(StringInfo out, double share, int color)
{
	share = Min(Max(share, 0), 1);
	appendStringInfo(out, "<svg class=bar viewBox=\"0 0 100 8\" preserveAspectRatio=none aria-hidden=true>"
					 "<rect class=track width=100 height=8 />"
					 "<rect class=\"%s%d\" width=\"%.2f\" height=8 /></svg>",
					 color < 0 ? "k" : "c", Max(color, 0), 100 * share);
}

/*
 * A tile: a label and a value, which is also there for programs.  The caller
 * writes the value as people read it, and ends the tile.
 */
void
EsHtmlTile(StringInfo out, const char *id, const char *label, double value)
{
	appendStringInfo(out, "<div class=tile id=\"%s\" data-value=\"%.15g\"><span>%s</span><strong>",
					 id, value, label);
}

/* note: markup of our own, or NULL. */
void
EsHtmlTileEnd(StringInfo out, const char *note)
{
	appendStringInfo(out, "</strong><small>%s</small></div>\n", note == NULL ? "" : note);
}
