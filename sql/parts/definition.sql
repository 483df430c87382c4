-- definition: what the tables of definitions have in common

-- Nobody can have a text run with rights that he does not have: who writes a
-- row must have the privileges of its owner.  Sessions that have compiled the
-- definitions are told of the change.
CREATE FUNCTION es_owned_definition_change() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_owned_definition_change() IS
	'stands before tables of definitions that have an owner';
