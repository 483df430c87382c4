# eventstore: an event store inside PostgreSQL (PGXS)

EXTENSION = eventstore
EXTVERSION = 0.1
MODULE_big = eventstore

ROOMS = eventstore catalog stream log append read guard check handler aggregate fold state point
OBJS = $(addprefix src/,$(addsuffix .o,$(ROOMS)))

# The installed SQL is one part a room, joined in this order.
PARTS = catalog stream append read log aggregate state guard check privilege
PART_FILES = $(addprefix sql/parts/,$(addsuffix .sql,$(PARTS)))
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql
EXTRA_CLEAN = sql/$(EXTENSION)--$(EXTVERSION).sql

REGRESS = catalog stream append read log guard check aggregate state
REGRESS_OPTS = --inputdir=test
ISOLATION =
ISOLATION_OPTS = --inputdir=test --outputdir=.
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h)

sql/$(EXTENSION)--$(EXTVERSION).sql: $(PART_FILES)
	cat $^ > $@
