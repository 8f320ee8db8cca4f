# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.

# The newest Python that the locked packages are tested with; another one: `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.installed
READY := $(VENV)/.installed-dev
CODE := $(wildcard blocks flows api deployments benchmarks tests)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
fail = { echo '$(1)' >&2; exit 1; }
count = grep -c '^[a-z0-9].*==' $(1)

# The two locks are complete, so nothing is resolved; the first import compiles only what it needs, which
# takes a third of the time that compiling everything does.
PIP_FLAGS := --no-deps --require-hashes --only-binary :all: --no-compile --progress-bar off
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_USER := 0
# Packages of the machine have no say in here, and the first import has to keep what it compiles.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

# Install what a lock names, and show on a terminal how far that is.
define install
$(BIN)/python -m pip install $(PIP_FLAGS) -r $(1) 2> >(grep -v '^WARNING: ' >&2) | { n=0; while read -r word rest; do \
		[ -t 1 ] || continue; \
		case $$word in \
			Collecting) n=$$((n + 1)); printf '\r  fetched %d' $$n;; \
			Installing) printf '\r  unpacking   ';; \
		esac; \
	done; [ ! -t 1 ] || printf '\r\033[K'; }
endef

.DEFAULT_GOAL := help
.PHONY: help demo up test chromium screenshots collect unit faults fuzz check format bench grown licences lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(RUNS) ## Show the whole life of a job on this machine, with a sample manifest
	@$(BIN)/refinery demo $(ARGS)

up: $(RUNS) ## Run the service on this machine until Ctrl-C
	@$(BIN)/refinery up $(ARGS)

# Meanwhile pytest compiles the tests once, and not in each of its processes.
test: $(READY) chromium ## Run the checks, then every test; PYTEST_ARGS="-k name" is passed on
	@$(MAKE) --no-print-directory -j2 --output-sync check collect
	$(BIN)/python -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder --durations=15 $(PYTEST_ARGS)

# Without one, the tests of the pages are skipped, and say so again.
chromium:
	@if command -v chromium chromium-browser google-chrome >/dev/null; then exit; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo 'Installing Chromium for the tests of the pages, only once.'; \
		install() { apt-get install -qq -y --no-install-recommends chromium; }; \
		{ install || { apt-get update -qq && install; }; } >/dev/null 2>&1 && exit; \
	fi; \
	echo 'There is no Chromium, so the tests of the pages are skipped (Debian: apt install chromium).'

collect: $(READY)
	@$(BIN)/python -m pytest --collect-only -qq tests >/dev/null || $(call fail,The tests cannot be collected: make unit says why.)

unit: $(READY) ## Run the tests that need no server
	$(BIN)/python -m pytest -q tests/unit $(PYTEST_ARGS)

faults: $(READY) ## Inject every fault and try every attack that the tests know; PYTEST_ARGS="-k API" chooses
	$(BIN)/python -m pytest tests/e2e/test_injected_faults.py tests/e2e/test_hostile_neighbour.py --faults-all -s -q $(PYTEST_ARGS)

fuzz: $(READY) ## Ask every operation of the API what its schema allows and what not; PYTEST_ARGS="-k operator" chooses
	$(BIN)/python -m pytest tests/integration/test_fuzzed_api.py --fuzz-all -q $(PYTEST_ARGS)

check: $(READY) ## Check format, lint, types, who imports whom, spelling, and the lock
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell $(filter-out tests,$(CODE)) docs README.md Makefile prefect.yaml
	$(BIN)/python -m pip check

format: $(READY) ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

screenshots: $(READY) chromium ## Take the pictures of the pages for docs/ again
	@$(BIN)/python -m tests.screenshots

bench: $(READY) ## Measure; the results are printed
	@$(BIN)/python -m benchmarks $(ARGS)

grown: $(READY) ## Run on several machines, which are network namespaces here: throughput, then faults; needs root
	@$(BIN)/python -m benchmarks.grown $(ARGS)

licences: $(READY) ## List the licences of all packages that Refinery runs on, in docs/licences.md
	@$(BIN)/python -m tests.support.licences

# Versions that a lock has already are kept, so the second one has those of the first.
lock: ## Make constraints.txt and constraints-dev.txt again; LOCK_ARGS=--upgrade for newer versions
	@set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	"$(PYTHON)" -m venv "$$tmp/venv"; \
	"$$tmp/venv/bin/python" -m pip install -qq 'uv>=0.13'; \
	compile() { "$$tmp/venv/bin/uv" pip compile pyproject.toml --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet "$$@" >/dev/null; }; \
	cat constraints.txt constraints-dev.txt > "$$tmp/all"; \
	compile --all-extras $(LOCK_ARGS) --output-file "$$tmp/all"; \
	cp "$$tmp/all" "$$tmp/runs"; \
	compile --extra embedded --extra redis --extra otel --extra checkout --output-file "$$tmp/runs"; \
	awk '/^[a-z0-9]/ { keep = FILENAME != ARGV[1] && !($$0 in runs); runs[$$0] } keep' "$$tmp/runs" "$$tmp/all" > "$$tmp/dev"; \
	{ sed -n '/^#/!q; p' constraints.txt; cat "$$tmp/runs"; } > "$$tmp/constraints.txt"; \
	{ sed -n '/^#/!q; p' constraints-dev.txt; cat "$$tmp/dev"; } > "$$tmp/constraints-dev.txt"; \
	if grep -n '://' "$$tmp"/constraints*.txt; then echo 'make lock: these lines hold an address; nothing was written.' >&2; exit 1; fi; \
	for lock in constraints.txt constraints-dev.txt; do cat "$$tmp/$$lock" > "$$lock"; done

clean: ## Delete the virtual environment, caches and build outputs
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is removed first and written last: what was interrupted is done again from the start. The pip
# of older Pythons is slow and comes without a venv on some releases of Debian, so ours is taken from the lock.
# `make demo` and `make up` need no packages but those that Refinery runs on.
$(RUNS): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || $(call fail,Python 3.11 or newer is needed (Debian: apt install python3 python3-venv).)
	@if [ -e $@ ] && $(BIN)/python -c '' 2>/dev/null; then rm $@; else \
		rm -rf $(VENV); \
		"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear --without-pip $(VENV) \
			|| $(call fail,$(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv).); \
		$(BIN)/python -m pip --version >/dev/null 2>&1 && pip='$(BIN)/python -m pip' || pip='$(PYTHON) -m pip --python $(BIN)/python'; \
		sed -n '/^pip==/,/# via/p' constraints.txt | $$pip install $(PIP_FLAGS) -qq -r /dev/stdin \
			|| $(call fail,pip could not be installed into $(VENV) (Debian: apt install python3-venv).); \
	fi
	@echo "Setting up $(VENV): $$($(call count,constraints.txt)) packages, 270 MB to fetch, about a minute, only once."
	@$(call install,constraints.txt)
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

$(READY): $(RUNS) constraints-dev.txt
	@rm -f $@
	@echo "Adding $$($(call count,constraints-dev.txt)) packages for the tests and the checks to $(VENV), 65 MB to fetch."
	@$(call install,constraints-dev.txt)
	@touch $@
