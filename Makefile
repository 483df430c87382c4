# eventstore: an event store inside PostgreSQL (PGXS)
#
#	make quickstart		from nothing: install what is needed, build, install, show
#	make test			from nothing: every test; ends in "N passed, N failed"
#						SUITES="regress tap" and TESTS="append*" choose some
#	make mutants		check that the tests find each of the seeded bugs
#	make matrix			build and test on PostgreSQL 15, 17 and 18
#	make sanitize		the tests with assertions, valgrind and sanitizers
#	make fuzz			made-up input for the parsers, FUZZ_SECONDS (60) for each
#	make sqlsmith		random statements for SQLSMITH_SECONDS (an hour)
#	make dist			the source archive, as PGXN wants it
#	make reliability	the long forms of the tests that do damage, as a table
#						SCENARIOS="crash soak" chooses some (test/reliability.txt)
#	make soak			faults at random for ES_SOAK_MINUTES (30)
#	make bench			how fast, beside plain SQL and other stores
#	make bare-check		quickstart and test in an empty Debian
#
# and as in any extension: make, make install, make installcheck, make clean,
# with PG_CONFIG for another PostgreSQL than the first in PATH.

EXTENSION = eventstore eventstore_router
EXTVERSION = 0.2
ROUTERVERSION = 0.1
MODULE_big = eventstore
HEADERS_eventstore = src/eventstore.h

# Where the sources are: elsewhere, in a VPATH build.
top := $(patsubst %/,%,$(or $(VPATH),$(dir $(firstword $(MAKEFILE_LIST)))))
ifneq ($(top),.)
VPATH := $(top)
endif

ROOMS = eventstore catalog point attempt row_security \
	segment archive_key archive archive_list scan \
	stream tag lifecycle log epoch \
	stat stat_progress stat_sample stat_store \
	append metadata event_id insert read guard \
	check check_schema check_health check_event check_index \
	export archiver archive_check \
	match query_template boundary event_set boundary_read append_if boundary_state retag \
	handler definition definition_digest versioned template type_check event_type upcast cloudevent output_plugin \
	digest category aggregate aggregate_define fold snapshot_table snapshot snapshot_due app_snapshot kept state \
	decider command_id command trial \
	query wake projection apply inline batch runner wait shadow rebuild worker \
	report report_chart report_html report_store report_stream report_style \
	track \
	subscription subscription_lease subscription_park subscription_fetch subscription_commit subscription_wait
OBJS = $(addprefix src/,$(addsuffix .o,$(ROOMS)))

# The installed SQL is one part a room, joined in this order.
PARTS = install catalog definition event_type upcast \
	stream lifecycle append read log epoch \
	aggregate snapshot state decider command trial \
	guard tag boundary boundary_state check archive \
	projection runner rebuild worker \
	track \
	subscription \
	cloudevent \
	stat report \
	comment privilege
PART_FILES = $(addprefix sql/parts/,$(addsuffix .sql,$(PARTS)))
STORE_built = sql/eventstore--$(EXTVERSION).sql
ROUTER_built = sql/eventstore_router--$(ROUTERVERSION).sql
DATA_built = $(STORE_built) $(ROUTER_built)
# Beside it, what was released: install scripts, which never change any more
# (test/frozen.sha256), and the upgrade steps.  The step to EXTVERSION brings
# the version before to what the parts create: whoever changes a part writes the
# same change into that step, and test/t/upgrade.pl compares the two.
DATA = $(filter-out $(DATA_built),$(patsubst $(top)/%,%,$(wildcard $(top)/sql/eventstore*--*.sql)))

# The router, an extension of its own for a database that holds no events.
ROUTER_PARTS = partition stream boundary log subscription definition table stat check privilege
ROUTER_PART_FILES = $(addprefix sql/router/,$(addsuffix .sql,$(ROUTER_PARTS)))

REGRESS = catalog stream append read log epoch guard trigger check hijack row_security privilege install \
	tag boundary match boundary_command boundary_rights \
	archive archive_file \
	event_type lifecycle upcast upcast_fold type_routes \
	aggregate aggregate_rights state snapshot decider command trial \
	projection projection_rights runner rebuild drop_handler \
	track track_rights errors comfort hostile fuzz \
	subscription subscription_park subscription_archive \
	cloudevent decoding decoding_upcast \
	stat doctor report
REGRESS_OPTS = --inputdir=$(top)/test --encoding=UTF8 --no-locale
ISOLATION = $(sort $(patsubst $(top)/test/specs/%.spec,%,$(wildcard $(top)/test/specs/*.spec)))
POINTS = $(sort $(patsubst $(top)/test/specs/%.spec,%,$(wildcard $(top)/test/specs/points/*.spec)))
ISOLATION_OPTS = --inputdir=$(top)/test --outputdir=.
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers

# The codecs of archived events: those that the server has, where their headers
# are installed.  The libraries are the server's own.
has_header = $(shell $(CC) $(CPPFLAGS) -E -include $(1) -x c /dev/null >/dev/null 2>&1 && echo yes)

# The first target, also where PostgreSQL is still missing.
all:

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifneq ($(wildcard $(PGXS)),)

include $(PGXS)

ifeq ($(filter -lzstd,$(LIBS))$(call has_header,zstd.h),-lzstdyes)
override CPPFLAGS += -DES_WITH_ZSTD
SHLIB_LINK += -lzstd
endif
ifeq ($(filter -llz4,$(LIBS))$(call has_header,lz4.h),-llz4yes)
override CPPFLAGS += -DES_WITH_LZ4
SHLIB_LINK += -llz4
endif

ifneq ($(top),.)
# Objects, the joined SQL and the expected output are looked for here.
$(shell mkdir -p src sql && ln -sfn $(abspath $(top))/expected expected)
endif

$(OBJS): $(wildcard $(top)/src/*.h)

$(STORE_built): $(PART_FILES) $(top)/Makefile
	cat $(filter %.sql,$^) > $@

$(ROUTER_built): $(ROUTER_PART_FILES) $(top)/Makefile
	cat $(filter %.sql,$^) > $@

else

all install uninstall installcheck installdirs:
	@echo 'PostgreSQL and its server headers were not found by "$(PG_CONFIG)".' >&2
	@echo 'Name another pg_config (make PG_CONFIG=...), or install them (make deps).' >&2
	@false

clean distclean maintainer-clean:
	rm -f $(OBJS) $(OBJS:.o=.bc) $(MODULE_big).so $(DATA_built)
	rm -rf results output_iso tmp_check tmp_check_iso log regression.diffs regression.out

endif

# These need nothing but make: the scripts see to the rest.
export PG_CONFIG
tools = $(top)/test/tools

.PHONY: all deps quickstart test mutants matrix sanitize fuzz reliability soak sqlsmith dist bare-check bench

deps:
	@$(tools)/install-deps.sh test

quickstart:
	@$(tools)/install-deps.sh build
	@$(tools)/quickstart.sh

test:
	@$(tools)/install-deps.sh test
	@$(tools)/sandbox.sh test/tools/run-tests.sh

mutants:
	@$(tools)/install-deps.sh test
	@$(tools)/sandbox.sh test/tools/mutants.sh

matrix:
	@$(tools)/install-deps.sh ci
	@$(tools)/matrix.sh $(VERSIONS)

sanitize:
	@$(tools)/install-deps.sh sanitize
	@$(tools)/sanitize.sh $(CHECKS)

# These two on a server with assertions, where one can be built.
fuzz:
	@$(tools)/install-deps.sh sanitize
	@PG_CONFIG=$$($(tools)/checked-postgres.sh) && export PG_CONFIG && $(tools)/sandbox.sh test/tools/fuzz.sh

sqlsmith:
	@$(tools)/install-deps.sh sanitize
	@PG_CONFIG=$$($(tools)/checked-postgres.sh) && export PG_CONFIG && $(tools)/sandbox.sh test/tools/sqlsmith.sh

# What is committed, and nothing else; the upgrade steps and install scripts of
# earlier versions are in it, the joined script is made by make.
dist:
	@git -C $(top) archive --format=zip --prefix=eventstore-$(EXTVERSION).0/ -o "$(CURDIR)/eventstore-$(EXTVERSION).0.zip" HEAD
	@echo eventstore-$(EXTVERSION).0.zip

reliability:
	@$(tools)/install-deps.sh test
	@$(tools)/sandbox.sh test/tools/reliability.sh

soak:
	@SCENARIOS=soak $(MAKE) --no-print-directory reliability

bare-check:
	@$(tools)/bare-check.sh

# Needs the extension installed; test/bench/run tells its options.
bench:
	@PG_CONFIG=$(PG_CONFIG) $(top)/test/bench/run

# print-REGRESS and the like: a list of this file, for the scripts.
print-%:
	@echo $($*)
