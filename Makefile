# `make demo` needs only git, make and Python 3.11 to 3.13 with venv: everything else is installed into .venv.
# One command each; what they do in detail is in the programs that they call, not here.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
CLINICS ?=
PATIENTS ?=
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV := $(BIN)/python -m uv
LOCK_COMMAND = $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header
SOURCES := plugins dags include tests bench

# Commands of ours run with this Python alone: nothing of the caller's Python settings gets in. Where a caller forbids
# Python to keep what it has compiled, each process would compile every module again.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-restore demo-disaster demo-distributed up down test test-matrix test-install lint docs release lock bench bench-quick clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  demo, up and the benchmarks take CLINICS=n and PATIENTS=n, for instance: make demo CLINICS=20 PATIENTS=500"

demo: $(INSTALLED)  ## Back up demo clinics with a PostgreSQL and an Airflow of its own, print the table, stop
	@$(BIN)/python -m include.demo demo $(if $(CLINICS),--clinics $(CLINICS)) $(if $(PATIENTS),--patients $(PATIENTS))

up: $(INSTALLED)  ## The same, and stay up: prints the address, user and password of the web page
	@$(BIN)/python -m include.demo up $(if $(CLINICS),--clinics $(CLINICS)) $(if $(PATIENTS),--patients $(PATIENTS))

demo-restore: $(INSTALLED)  ## Damage one clinic of the demo, show the plan, restore it, prove it
	@$(BIN)/python -m include.demo restore

demo-disaster: $(INSTALLED)  ## Delete the demo's database server, recover everything from the store and the key, compare
	@$(BIN)/python -m include.demo disaster $(if $(CLINICS),--clinics $(CLINICS)) $(if $(PATIENTS),--patients $(PATIENTS))

demo-distributed: $(INSTALLED)  ## Airflow with Celery and two workers that share no disk: back up, kill one, restore
	@$(BIN)/python -m include.demo distributed $(if $(CLINICS),--clinics $(CLINICS)) $(if $(PATIENTS),--patients $(PATIENTS))

down: $(INSTALLED)  ## Stop what `make up` started
	@$(BIN)/python -m include.demo down

# Three processes, each with servers of its own: one often waits for its servers. See tests/processes.py.
test: $(INSTALLED)  ## Run the whole test suite
	@.ci/bring
	@$(BIN)/python -m pytest -n 3

test-matrix: $(INSTALLED)  ## Run the tests of database shapes on PostgreSQL 15, 16, 17 and 18
	@$(BIN)/python -m tests.matrix

test-install: $(INSTALLED)  ## Follow README and docs/install.md with each Python of 3.11 to 3.13 that is found
	@$(BIN)/python -m tests.install

lint: $(INSTALLED)  ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## Write the reference pages, docs/settings.md and docs/commands.md, from the code
	@$(BIN)/python -m include.docs

release: $(INSTALLED)  ## Build wheel, sdist and (with docker) the image of this version into dist/, and check them
	@$(BIN)/python -m include.release

bench: $(INSTALLED)  ## Measure throughput and memory
	@$(BIN)/python -m bench $(if $(CLINICS),--clinics $(CLINICS)) $(if $(PATIENTS),--patients $(PATIENTS))

bench-quick: $(INSTALLED)  ## Measure with little data, in under three minutes
	@$(BIN)/python -m bench --quick $(if $(CLINICS),--clinics $(CLINICS)) $(if $(PATIENTS),--patients $(PATIENTS))

lock: $(INSTALLED)  ## Write the locks (requirements.txt and the others) anew from their .in files
	$(LOCK_COMMAND) requirements.in -o requirements.txt
	$(call lock_on_top,include/docker/requirements)
	$(call lock_on_top,requirements-dev)
	@$(MAKE) $(INSTALLED)
	$(BIN)/python -m include.locks requirements.txt include/docker/requirements.txt requirements-dev.txt

# A lock that is installed together with requirements.txt leaves out what that one has for every system.
define lock_on_top
$(LOCK_COMMAND) --quiet $$(sed -n 's/^\([a-z0-9._-]*\)==[^;]*$$/--no-emit-package \1/p' requirements.txt) \
	  $(1).in -o $(1).txt
	sed -i '/^# The following packages were excluded/,$$d' $(1).txt
endef

clean:  ## Stop the demo and remove everything that git does not keep: .venv, .demo, caches
	@if [ -f $(INSTALLED) ]; then $(BIN)/python -m include.demo down; fi
	rm -rf $(VENV) .demo .demo-distributed .tools build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf plugins/*.egg-info
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# The project itself is installed without build isolation: setuptools is in the lock, so nothing unlocked is fetched.
$(INSTALLED): requirements.txt requirements-dev.txt pyproject.toml setup.py
	@rm -rf $@ plugins/*.egg-info
	@$(choose_python)
	@echo "Installing into $(VENV) (about 1.6 GB; half a minute once the packages are in the cache)"
	@$(BIN)/python -m uv --version 2>/dev/null | grep -q "^uv $(UV_VERSION)\b" \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@UV_PYTHON_DOWNLOADS=never $(UV) pip install --quiet --python $(BIN)/python --require-hashes \
	  -r requirements.txt -r requirements-dev.txt
	@UV_PYTHON_DOWNLOADS=never $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Makes .venv with the first Python of 3.11 to 3.13 that can, or says which package to install. A .venv that still works
# is kept. PYTHON=/path/to/python chooses another one.
define choose_python
if [ -x $(BIN)/python ] && $(BIN)/python -c 'import pip' 2>/dev/null; then exit 0; fi; \
fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; \
without_venv=; \
for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
  "$$candidate" -c "$$fits" >/dev/null 2>&1 || continue; \
  if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
    echo "Making $(VENV) with $$("$$candidate" --version)"; \
    "$$candidate" -m venv --clear $(VENV); \
    exit 0; \
  fi; \
  without_venv=$${without_venv:-$$candidate}; \
done; \
if [ -n "$$without_venv" ]; then \
  echo "$$without_venv cannot make virtual environments (its module ensurepip is missing)." >&2; \
  echo "HINT: apt-get install $$(basename "$$without_venv")-venv, then run make again." >&2; \
else \
  echo "No Python 3.11, 3.12 or 3.13 was found; $$(python3 --version 2>/dev/null || echo 'there is no python3')." >&2; \
  echo "HINT: apt-get install python3 python3-venv (Debian 12 or later, Ubuntu 24.04 or later)," >&2; \
  echo "      or name one: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12" >&2; \
fi; \
exit 1
endef
