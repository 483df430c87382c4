-- rebuild: read models computed anew, and as they were

-- What long work there is; a row lives as long as the work.
CREATE TABLE es_job (
	pid           integer     NOT NULL,
	backend_start timestamptz NOT NULL,
	job           text        NOT NULL,
	phase         text        NOT NULL,
	done          bigint      NOT NULL DEFAULT 0,
	total         bigint      NOT NULL DEFAULT 0,
	events        bigint      NOT NULL DEFAULT 0,
	started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	CONSTRAINT es_job_pkey PRIMARY KEY (pid)
);
COMMENT ON TABLE es_job IS 'long work, for es_progress';
-- Nothing in it is worth dumping.
SELECT pg_catalog.pg_extension_config_dump('es_job', 'WHERE false');

-- Computes the read tables anew from the first event on, aside, while appends
-- and readers go on; then makes the tables equal to that in one transaction.
-- They stay the same tables, with their indexes, grants, views and foreign
-- keys.  Give them primary keys: then only rows that differ are touched.
-- Cancelled, it leaves everything as it was.
CREATE PROCEDURE es_rebuild_projection(name text)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE es_rebuild_projection(text) IS
	'compute the read tables of a projection anew, without downtime';

-- Fills temporary tables of the same names as the read tables, which hide
-- them until dropped.  at: events recorded by then; position: events up to
-- there; neither: all.  Needs the rights of the projection's owner.
CREATE FUNCTION es_project_at(
	projection text,
	at         timestamptz DEFAULT NULL,
	"position" bigint      DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_project_at(text, timestamptz, bigint) IS
	'show a read model as it was, in temporary tables of the same names; answers the position';
