-- definition: what the tables of definitions have in common

-- Nobody can have a text run with rights that he does not have: who writes a
-- row must have the privileges of its owner, which is that of the aggregate
-- where the row has none of its own.  Sessions that have compiled the
-- definitions are told of the change.  The argument is what the first column
-- names.
CREATE FUNCTION es_definition_change() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_definition_change() IS
	'stands before the tables of definitions';
