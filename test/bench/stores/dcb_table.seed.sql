\ir dcb.seed.sql
