-- Decisions on tags, design 1: one writer at a time.
\ir dcb.sql

CREATE FUNCTION append_if(p_type text, p_data jsonb, p_tags text[], p_tag text, p_after bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	LOCK TABLE event IN EXCLUSIVE MODE;
	RETURN check_and_insert(p_type, p_data, p_tags, p_tag, p_after);
END $$;
