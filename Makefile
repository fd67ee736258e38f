# tasker: builds with PGXS.  `make check` builds, starts a server of its own
# and runs everything; `make install` installs into what pg_config names.

EXTENSION = tasker
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" tasker.control)
MODULE_big = tasker

# The rooms, each with its C ...
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c src/state/*.c src/definition/*.c \
	src/registry/*.c src/secret/*.c src/access/*.c src/task/*.c src/readiness/*.c src/engine/*.c src/lease/*.c src/http/*.c src/event/*.c src/diagram/*.c))

# ... and its SQL, in the order in which the install script runs it.
SQL_PARTS = $(wildcard $(addprefix src/, \
	header.sql \
	state/states.sql \
	registry/context.sql \
	access/access.sql \
	access/token.sql \
	definition/tables.sql \
	registry/tables.sql \
	task/tables.sql \
	readiness/queue.sql \
	readiness/limits.sql \
	state/log.sql \
	engine/tables.sql \
	event/tables.sql \
	task/views.sql \
	definition/yaml.sql \
	definition/schema.sql \
	event/payload.sql \
	event/examples.sql \
	event/catalog.sql \
	registry/log.sql \
	registry/handlers.sql \
	registry/dependencies.sql \
	secret/secret.sql \
	definition/validate_keys.sql \
	definition/validate.sql \
	definition/register.sql \
	definition/key_schema.sql \
	definition/export.sql \
	definition/lint.sql \
	registry/registries.sql \
	task/annotations.sql \
	task/identity.sql \
	task/create.sql \
	task/errors.sql \
	task/wait.sql \
	task/operate.sql \
	task/run.sql \
	lease/lease.sql \
	http/tables.sql \
	http/template.sql \
	http/validate.sql \
	http/request.sql \
	http/response.sql \
	event/custom.sql \
	event/tick.sql \
	event/match.sql \
	event/subscribe.sql \
	event/fetch.sql \
	event/prune.sql \
	event/handler.sql \
	event/generate/plpgsql.sql \
	event/generate/python.sql \
	event/generate/node.sql \
	event/generate/c.sql \
	event/generate/shell.sql \
	event/generate.sql \
	readiness/readiness.sql \
	readiness/context.sql \
	task/status.sql \
	state/verify.sql \
	diagram/diagram.sql \
	engine/activation.sql \
	engine/health.sql \
	access/agent.sql \
	rest/rest.sql \
	rest/schemas.sql \
	rest/tasks.sql \
	rest/steps.sql \
	rest/analysis.sql \
	rest/templates.sql \
	rest/handlers.sql \
	rest/events.sql \
	rest/health.sql \
	telemetry/totals.sql \
	telemetry/health.sql \
	telemetry/analytics.sql \
	telemetry/bottlenecks.sql \
	telemetry/metrics.sql \
	rest/telemetry.sql \
	access/enforce.sql \
	access/grants.sql \
	rest/grants.sql \
	engine/install.sql))
EXTENSION_SCRIPT = tasker--$(EXTVERSION).sql
DATA_built = $(EXTENSION_SCRIPT)
EXTRA_CLEAN = $(AGENT_MAN) $(AGENT_UNIT) tasker--*.sql tmp_check tmp_fuzz output_iso $(patsubst %.c,%,$(wildcard test/fuzz/*_fuzz.c)) \
	src/agent/tasker-agent src/agent/tasker-agent.sanitized

# Our own warnings are errors; the server's headers are not ours to warn about.
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server) -Isrc \
	-DTASKER_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
	-Wold-style-definition -Wwrite-strings -Wno-unused-parameter \
	-Wno-sign-compare -Wno-missing-field-initializers -Wno-declaration-after-statement
ifneq ($(findstring clang,$(CC)),)
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-attributes \
	-Wno-ignored-optimization-argument -Wno-unused-command-line-argument
endif
SHLIB_LINK = -lyaml
override with_llvm = no

PG_CONFIG ?= pg_config

ifeq ($(filter check,$(MAKECMDGOALS)),)

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(EXTENSION_SCRIPT): $(SQL_PARTS) tasker.control
	cat $(SQL_PARTS) > $@

$(OBJS): $(wildcard src/*.h src/*/*.h)

# tasker-agent: a program of its own, on libpq (src/agent/).
AGENT = src/agent/tasker-agent$(if $(AGENT_SANITIZE),.sanitized)
AGENT_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
	-Wold-style-definition -Wwrite-strings -Wmissing-prototypes -Wno-unused-parameter \
	-Wno-missing-field-initializers -D_GNU_SOURCE \
	-I$(shell $(PG_CONFIG) --includedir) -DTASKER_VERSION='"$(EXTVERSION)"' \
	-DTASKER_PAGES='"$(datadir)/tasker/pages"'

# Graphviz looks for its plugins at run time; the two that svg.c needs are linked.
GRAPHVIZ_PLUGINS := $(shell pkg-config --variable=libdir libgvc)/graphviz
AGENT_LIBS = -L$(shell $(PG_CONFIG) --libdir) -lpq -lcurl -lmicrohttpd -ljansson -lcrypto -lz -lpthread \
	$(shell pkg-config --libs libgvc libcgraph) \
	-L$(GRAPHVIZ_PLUGINS) -lgvplugin_core -lgvplugin_dot_layout -Wl,-rpath,$(GRAPHVIZ_PLUGINS)

# make check-sanitize: the tests meet an agent that watches over itself, a program beside
# the other.  What watches is linked into it: gcc's two libraries would share one file of
# reports only by half.
ifdef AGENT_SANITIZE
AGENT_CFLAGS += -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined -DAGENT_SANITIZE
AGENT_WATCH = test/sanitizers.c
ifeq ($(findstring clang,$(CC)),)
AGENT_CFLAGS += -static-libasan -static-libubsan
endif
endif

all: $(AGENT)
$(AGENT): $(wildcard src/agent/*.c src/agent/*.h) $(AGENT_WATCH) tasker.control
	$(CC) $(AGENT_CFLAGS) -o $@ $(filter %.c,$^) $(AGENT_LIBS)

# The pages that tasker-agent serves, as they are: nothing is built of them.
PAGES = $(wildcard $(addprefix src/agent/pages/*., html js css svg))

# Its manual page, whose options are those of --help, and its unit for systemd.
AGENT_MAN = src/agent/tasker-agent.1
AGENT_UNIT = src/agent/tasker-agent.service
all: $(AGENT_MAN) $(AGENT_UNIT)
$(AGENT_MAN): %: %.in src/agent/options.awk $(AGENT)
	$(AGENT) --help | awk -v FORM=man -f src/agent/options.awk | \
		sed -e 's/@VERSION@/$(EXTVERSION)/' -e '/@OPTIONS@/{r /dev/stdin' -e 'd;}' $< >$@
$(AGENT_UNIT): %: %.in
	sed 's|@bindir@|$(bindir)|' $< >$@

install: install-beside
.PHONY: install-beside
install-beside: $(AGENT) $(AGENT_MAN) $(AGENT_UNIT)
	$(MKDIR_P) '$(DESTDIR)$(bindir)' '$(DESTDIR)$(datadir)/tasker/pages' '$(DESTDIR)$(mandir)/man1'
	$(INSTALL_DATA) $(AGENT_MAN) '$(DESTDIR)$(mandir)/man1'
	$(INSTALL_DATA) $(AGENT_UNIT) '$(DESTDIR)$(datadir)/tasker'
	$(INSTALL_PROGRAM) $(AGENT) '$(DESTDIR)$(bindir)/tasker-agent'
	$(INSTALL_DATA) src/definition/definition.schema.json '$(DESTDIR)$(datadir)/tasker'
	$(INSTALL_DATA) $(PAGES) '$(DESTDIR)$(datadir)/tasker/pages'

uninstall: uninstall-beside
.PHONY: uninstall-beside
uninstall-beside:
	rm -f '$(DESTDIR)$(bindir)/tasker-agent' '$(DESTDIR)$(mandir)/man1/tasker-agent.1'
	rm -f '$(DESTDIR)$(datadir)/tasker/definition.schema.json' '$(DESTDIR)$(datadir)/tasker/tasker-agent.service'
	rm -rf '$(DESTDIR)$(datadir)/tasker/pages'

# The model test with as many seeds as one wants (doc/testing.md).
SEEDS ?= 2000
FROM ?= 1
.PHONY: model
model: all
	MAKE="$(MAKE)" PG_CONFIG="$(PG_CONFIG)" SEEDS="$(SEEDS)" FROM="$(FROM)" TIME_LIMIT=86400 \
		sh test/run 200_model

# The tests of tasker-agent, all that start one, with an agent that watches over itself.
AGENT_TESTS = $(basename $(notdir $(shell grep -lE 'tasker-agent|HttpServer|RestAgent|pages\.mjs' test/t/*.pl)))
.PHONY: check-sanitize
check-sanitize:
	$(MAKE) AGENT_SANITIZE=yes TESTS="$(AGENT_TESTS)" check

# Arbitrary bytes for what reads foreign text: SECONDS for each program (doc/testing.md).
SECONDS ?= 60
.PHONY: fuzz
fuzz:
	$(MAKE) --no-print-directory -C test/fuzz
	sh test/fuzz/run $(SECONDS) tmp_fuzz $(PROGRAMS)

# The pictures in doc/pages.md, by the test of the pages.
.PHONY: screenshots
screenshots: all
	MAKE="$(MAKE)" PG_CONFIG="$(PG_CONFIG)" SCREENSHOTS=doc/images sh test/run 710_pages

# doc/benchmarks.md: the figures, all or some, beside those of others (doc/testing.md).
REPEAT ?= 5
PEERS ?= all
.PHONY: bench
bench: all
	MAKE="$(MAKE)" PG_CONFIG="$(PG_CONFIG)" REPEAT="$(REPEAT)" PEERS="$(PEERS)" \
		sh test/bench/run $(ROWS)

# What it costs with much behind it, and what executors wait for (doc/scaling.md); what
# REST costs beside its SQL (doc/rest.md); HTTP steps beside the ideal (doc/http.md); the
# first batch of a subscriber with much in the log (doc/events.md).
.PHONY: bench-scale bench-cores bench-rest bench-http bench-events
bench-scale bench-cores bench-rest bench-http bench-events: all
	MAKE="$(MAKE)" PG_CONFIG="$(PG_CONFIG)" sh test/bench/$(@:bench-%=%)

# doc/reference.md, the schema of definitions and the examples of events, from the database.
.PHONY: doc
doc: all
	MAKE="$(MAKE)" PG_CONFIG="$(PG_CONFIG)" sh test/doc_reference

else

# PGXS has a check of its own, which refuses.  So it is left out here, and
# another make, which has it, does whatever else there is to do.
OTHER_GOALS := $(filter-out check,$(MAKECMDGOALS))
.PHONY: check $(OTHER_GOALS)
check: $(OTHER_GOALS)
	$(MAKE) all
	MAKE="$(MAKE)" PG_CONFIG="$(PG_CONFIG)" sh test/run $(TESTS)
$(OTHER_GOALS):
	$(MAKE) $@

endif
