-- Decisions on tags, design 2: an exclusive advisory lock on each tag of the events and of the condition, sorted.
\ir dcb.sql

CREATE FUNCTION append_if(p_type text, p_data jsonb, p_tags text[], p_tag text, p_after bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	v_key bigint;
BEGIN
	FOR v_key IN SELECT DISTINCT hashtextextended(tag, 0) FROM unnest(p_tags || p_tag) AS tag ORDER BY 1 LOOP
		PERFORM pg_advisory_xact_lock(v_key);
	END LOOP;
	RETURN check_and_insert(p_type, p_data, p_tags, p_tag, p_after);
END $$;
