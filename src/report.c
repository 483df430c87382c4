/*
 * report.c: es_report(), the store or one of its streams on one page.
 *
 * The page is complete in itself: it fetches nothing and runs nothing, which
 * it also tells the browser, so that even a mistake of ours would stay without
 * effect.
 */
#include "postgres.h"

#include "access/table.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "report.h"

PG_FUNCTION_INFO_V1(es_report);

static void
begin_page(EsReport *report, const char *kind, const char *title)
{
	StringInfo	out = report->out;

	appendStringInfoString(out, "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\n"
						   "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
						   "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n"
						   "<meta name=color-scheme content=\"light dark\">\n"
						   "<title>");
	EsHtmlTitle(out, title);
	appendStringInfo(out, " &middot; eventstore</title>\n<style>%s</style></head>\n<body><main>\n"
					 "<header><h1><small>%s</small>", EsReportStyle, kind);
	EsHtmlText(out, title, 300);
	appendStringInfoString(out, "</h1></header>\n");
}

static void
end_page(EsReport *report)
{
	StringInfo	out = report->out;

	appendStringInfoString(out, "<footer>Made by es_report() in database ");
	EsHtmlText(out, get_database_name(MyDatabaseId), 0);
	appendStringInfoString(out, ", ");
	EsHtmlTime(out, report->now);
	appendStringInfoString(out, ", in ");
	EsHtmlSeconds(out, (GetCurrentTimestamp() - report->now) / (double) USECS_PER_SEC);
	appendStringInfo(out, ". PostgreSQL %s. Times are those of time zone ", PG_VERSION);
	EsHtmlText(out, pg_get_timezone_name(session_timezone), 0);
	appendStringInfoString(out, ".</footer>\n</main></body></html>\n");
}

/*
 * es_report(stream_id text) → text
 */
Datum
es_report(PG_FUNCTION_ARGS)
{
	EsReport	report = {.out = makeStringInfo(),.now = GetCurrentTimestamp()};

	report.event = EsEventOpen(&report.store, AccessShareLock);
	EsCheckPrivilege(report.event, ACL_SELECT);
	report.snapshot = GetActiveSnapshot();
	if (PG_ARGISNULL(0))
	{
		begin_page(&report, "Event store", get_database_name(MyDatabaseId));
		EsReportStore(&report);
	}
	else
	{
		begin_page(&report, "Stream", text_to_cstring(PG_GETARG_TEXT_PP(0)));
		EsReportStream(&report, PG_GETARG_TEXT_PP(0));
	}
	end_page(&report);
	table_close(report.event, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(report.out->data, report.out->len));
}
