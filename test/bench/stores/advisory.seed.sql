\ir plain.seed.sql
