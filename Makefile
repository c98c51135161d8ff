# Everything that one does with this project. `make` alone lists it.
#
# The environment lives in .venv and is made from the locks in requirements/, where every file that pip may install is
# named by its hash. The stamps in .venv/stamps say what is done, so that a second run does not do it again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
# Twice quiet: errors only. pip says a good deal else that nobody can act upon.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install
# Four test processes on the smallest machine that the tests are meant for, which has two cores: each waits about half of
# its time, for heartbeats and for time-outs to pass.
WORKERS ?= 4
# Extra arguments: make test ARGS="-k glare", make run ARGS="--port 9000".
ARGS ?=

# Commands that the tests use, each with the package that has it.
TEST_COMMANDS := ip=iproute2 unshare=util-linux node=nodejs npm=npm chromium=chromium firefox-esr=firefox-esr nginx=nginx-light objcopy=binutils turnserver=coturn strace=strace nft=nftables \
	redis-server=redis-server redis-sentinel=redis-sentinel caddy=caddy haproxy=haproxy pebble=pebble cloud-init=cloud-init promtool=prometheus prometheus=prometheus systemd-analyze=systemd initdb=postgresql
# In the browser SDK: its tools by their own lock, and no script of any of them is run.
NPM := npm --prefix sdk --silent

# Where this is set, each test process rewrites and compiles all tests anew (5 s of processor time), and each server and
# command that a test starts all of the source.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-fast collect all-python all-sdk fast-python fast-sdk check lint types sdk web wheel docs release screenshots bench fmt lock clean system

help: ## list what can be made
	@echo "Aldis: two programs find each other by name and talk directly. make ..."
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

run: $(STAMPS)/run ## start a server on this machine (installs what it needs into .venv first)
	@exec $(BIN)/aldis serve $(ARGS)

# Coverage is that of the pure layers by their own tests (tests/conftest.py). Measuring makes pure Python slower, and the
# test processes share two cores: hence the longer time-out. A process with nothing left to do takes over half of what
# another has before it (worksteal): when tests were dealt out in portions, one process got all those of the browser.
# The SDK's tests and the documentation site are made beside them: most tests of Python wait most of their time.
# Before them, beside the checks: mypy alone would leave the other core idle.
test: system ## lint, types, all tests with coverage, and the documentation site (installs what they need first)
	@$(MAKE) --no-print-directory -j2 --output-sync types lint collect
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory -j3 all-python all-sdk docs
	$(BIN)/python tools/pure_coverage.py

# pytest rewrites each file of tests when it first reads it, which takes 10 s of processor time for all of them: once here,
# instead of in each test process.
collect: $(STAMPS)/dev
	@mkdir -p build
	@$(BIN)/python -m pytest --collect-only -q $(ARGS) > build/collected.txt 2>&1 || { cat build/collected.txt; exit 1; }

all-python:
	tools/netns.sh $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --timeout 180 --cov --cov-report= $(ARGS)

# Which tests are fast: tests/support/fast.py. The two halves run beside each other; of the SDK's, only the
# summary shows, and the test that builds its package is left out.
test-fast: system $(STAMPS)/docs $(STAMPS)/sdk ## all tests that need no browser and no WebRTC engine: about a minute
	@$(MAKE) --no-print-directory -j2 fast-python fast-sdk

fast-python:
	@tools/netns.sh $(BIN)/python -m pytest -q --fast -n $(WORKERS) --dist worksteal $(ARGS)

all-sdk fast-sdk:
	@mkdir -p build
	@tools/netns.sh $(NPM) run $(if $(filter fast-sdk,$@),test:fast,test) > build/sdk-tests.txt 2>&1 || \
		{ cat build/sdk-tests.txt; exit 1; }
	@echo "The SDK's tests pass:" $$(grep -o "tests [0-9]*$$" build/sdk-tests.txt)

# Beside each other: each takes one core, mypy for half a minute.
check: ## lint and types alone
	@$(MAKE) --no-print-directory -j2 --output-sync lint types

lint: $(STAMPS)/dev $(STAMPS)/sdk
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(NPM) run lint

types: $(STAMPS)/docs $(STAMPS)/sdk
	$(BIN)/mypy
	$(NPM) run types

sdk: system $(STAMPS)/dev $(STAMPS)/sdk ## the unit tests of the browser SDK, with coverage
	tools/netns.sh $(NPM) test

web: $(STAMPS)/sdk ## build page and browser SDK into src/aldis/web (needs node and npm)
	$(NPM) run build

# Broken links are failures (mkdocs.yml). NO_MKDOCS_2_WARNING: what the theme says about its own future at each build.
docs: $(STAMPS)/docs $(STAMPS)/site ## build the documentation site: build/site/index.html
	@node tools/site/reference.js
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The documentation site: build/site/index.html"

wheel: $(STAMPS)/dev ## build the wheel of the server that deploy/ installs, into dist
	@rm -f dist/aldis_server-*.whl
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist packaging/server >/dev/null
	@ls dist/aldis_server-*.whl

release: system $(STAMPS)/dev $(STAMPS)/sdk ## build what users download into dist, install each file and try it; no upload
	$(BIN)/python tools/release.py $(ARGS)

screenshots: system web $(STAMPS)/dev ## take pictures of the page in every state: build/screenshots, and docs/images
	tools/netns.sh $(BIN)/python tools/screenshots.py $(ARGS)

# The benchmark installs the relays that it compares with from npm, by their own lock.
bench: $(STAMPS)/dev ## measure the server beside others (ARGS="--quick" for a short look)
	@tools/system-packages.sh node=nodejs npm=npm
	$(BIN)/python -m benchmarks.run $(ARGS)

fmt: $(STAMPS)/dev $(STAMPS)/sdk ## format the source, and mend what the linter can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(NPM) run format

# pip's settings and its further indexes stay outside: a lock must not depend on the machine that makes it.
COMPILE := PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= CUSTOM_COMPILE_COMMAND="make lock" \
	$(BIN)/pip-compile --no-config --quiet --generate-hashes --no-strip-extras --allow-unsafe --no-emit-options \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

lock: $(STAMPS)/dev ## bring the locks up to date with pyproject.toml and requirements/*.in (newest: ARGS=--upgrade)
	$(COMPILE) $(ARGS) --build-deps-for editable --output-file requirements/run.txt pyproject.toml
	$(COMPILE) $(ARGS) --extra aiortc --extra postgres --extra redis --output-file requirements/dev.txt pyproject.toml requirements/dev.in
	$(COMPILE) $(ARGS) --output-file requirements/docs.txt requirements/docs.in

clean: ## remove all that was made here, the environment too
	rm -rf $(VENV) build dist benchmarks/load/relays/node_modules sdk/node_modules tools/site/node_modules sdk/coverage sdk/types sdk/dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# PyInstaller puts the shared library of Python into a frozen program; Debian has it in a package of its own.
# Debian keeps the programs of PostgreSQL outside the path.
system: $(STAMPS)/venv
	@PATH="$$PATH:$$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')" tools/system-packages.sh $(TEST_COMMANDS)
	@$(BIN)/python -c 'import ctypes, sysconfig; ctypes.CDLL(sysconfig.get_config_var("INSTSONAME"))' 2>/dev/null || \
		tools/system-packages.sh no-libpython=$$($(BIN)/python -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])')

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Aldis needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3.12 ..." >&2; exit 69; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/system-packages.sh no-venv=python3-venv
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: requirements/run.txt pyproject.toml | $(STAMPS)/venv
	@echo "Installing what Aldis needs into $(VENV) (once; about a minute) ..."
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(STAMPS)/dev: requirements/dev.txt pyproject.toml | $(STAMPS)/venv
	@echo "Installing what the checks and tests need into $(VENV) (once; about a minute) ..."
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ $(STAMPS)/run

$(STAMPS)/docs: requirements/docs.txt $(STAMPS)/dev
	@echo "Installing what the documentation site is built with into $(VENV) (once) ..."
	@$(PIP) --require-hashes -r requirements/docs.txt
	@touch $@

$(STAMPS)/site: tools/site/package.json tools/site/package-lock.json $(STAMPS)/sdk
	@echo "Installing what the documentation site takes from npm into tools/site/node_modules (once) ..."
	@cd tools/site && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(STAMPS)/sdk: sdk/package.json sdk/package-lock.json | $(STAMPS)/venv
	@tools/system-packages.sh node=nodejs npm=npm
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "The browser SDK needs Node.js 20 or later" >&2; exit 69; }
	@echo "Installing what the browser SDK is built and tested with into sdk/node_modules (once) ..."
	@cd sdk && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@
