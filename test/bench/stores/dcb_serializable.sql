-- Decisions on tags, design 3: no lock, the transaction is SERIALIZABLE.
\ir dcb.sql

CREATE FUNCTION append_if(p_type text, p_data jsonb, p_tags text[], p_tag text, p_after bigint) RETURNS bigint LANGUAGE sql AS $$
	SELECT check_and_insert(p_type, p_data, p_tags, p_tag, p_after)
$$;
