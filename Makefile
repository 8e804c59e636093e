# Every target sets itself up in .venv under this checkout, from hash-pinned requirements.
# Needed beforehand: python3 >= 3.11 with its venv module, git and make; no compiler.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON ?= python3
BENCH_ARGS ?=
RESTARTS_ARGS ?=
TORTURE_ARGS ?=
UPGRADE ?=
MUTANTS_AT_ONCE ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
PIP_MUTATE := $(VENV)-mutate/bin/python -m pip --disable-pip-version-check --no-input --quiet install
INSTALL := $(PIP) install --require-hashes --no-build-isolation
COMPILE := $(VENV)-requirements/bin/pip-compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-header --no-config --no-emit-options --no-emit-index-url \
	--no-emit-find-links --no-emit-trusted-host --annotation-style line

PYTEST := $(BIN)/coverage run -m pytest --only-allowed-skips
WAITING := tests/boot tests/container tests/demo tests/devstack tests/doctor tests/e2e \
	tests/restarts tests/spire

.PHONY: help demo test lint types bench torture restarts mutate dist format clean requirements

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | sort | while IFS=$$'\t' read -r name what; do \
		printf '  make %-14s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.stamp-demo  ## tell the whole story on a real OpenBao and PostgreSQL, in a minute
	$(BIN)/taskmint demo

test: $(VENV)/.stamp-dev  ## every test, with the coverage floors; PYTEST_ARGS="-k name" narrows it
	rm -f .coverage .coverage.*
ifdef PYTEST_ARGS
	$(PYTEST) $(PYTEST_ARGS)
else
	@mkdir -p .cache
	@# Those that mostly wait for clocks and servers run beside the others; their words come after.
	$(PYTEST) $(WAITING) > .cache/waiting.log 2>&1 & waiting=$$!; \
	trap 'kill $$waiting 2>/dev/null; wait $$waiting' INT TERM; failed=0; \
	$(PYTEST) $(addprefix --ignore=,$(WAITING)) || failed=$$?; \
	wait $$waiting || failed=$$?; cat .cache/waiting.log; exit $$failed
endif
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='*/taskmint/policy/*,*/taskmint/tasks/*' --fail-under=95
	$(BIN)/coverage report --fail-under=90

lint: $(VENV)/.stamp-dev  ## ruff, its formatter, hadolint
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/hadolint Dockerfile

types: $(VENV)/.stamp-dev  ## mypy --strict over src and tests
	$(BIN)/mypy

restarts: $(VENV)/.stamp-dev  ## 50 restarts of the daemon under load: no caller may notice; five minutes
	$(BIN)/python tests/restarts $(RESTARTS_ARGS)

bench: $(VENV)/.stamp-dev  ## the benchmark; BENCH_ARGS=--quick takes under a minute
	$(BIN)/python tests/bench $(BENCH_ARGS)

mutate: $(VENV)-mutate/.stamp  ## break the policy package in every way there is; the tests must notice
	$(VENV)-mutate/bin/mutmut run --max-children $(MUTANTS_AT_ONCE) > .cache/mutate.log 2>&1 \
		|| { tail -n 40 .cache/mutate.log; exit 1; }
	$(VENV)-mutate/bin/python tests/policy/mutation.py

torture: $(VENV)/.stamp-dev  ## kill -9 on real servers, audited; TORTURE_ARGS="--kills 2000 --minutes 80"
	$(BIN)/python tests/torture $(TORTURE_ARGS)

format: $(VENV)/.stamp-dev  ## let ruff's formatter rewrite src and tests
	$(BIN)/ruff format src tests

dist: $(VENV)/.stamp-build  ## the wheel and the source distribution, in dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-requirements $(VENV)-mutate mutants .coverage .coverage.* \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis dist demo.json bench.json
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

requirements: $(VENV)-requirements/.stamp  ## regenerate requirements/*.txt; UPGRADE=--upgrade moves versions
	$(COMPILE) $(UPGRADE) -o requirements/build.txt requirements/build.in
	$(COMPILE) $(UPGRADE) -o requirements/runtime.txt pyproject.toml
	$(COMPILE) $(UPGRADE) -c requirements/runtime.txt --extra demo \
		-o requirements/demo.txt pyproject.toml
	$(COMPILE) $(UPGRADE) -c requirements/runtime.txt --extra otel \
		-o requirements/otel.txt pyproject.toml
	$(COMPILE) $(UPGRADE) -c requirements/demo.txt -c requirements/otel.txt \
		-c requirements/build.txt --extra demo --extra otel --extra dev \
		-o requirements/dev.txt pyproject.toml
	$(COMPILE) $(UPGRADE) -c requirements/dev.txt -c requirements/build.txt --extra demo \
		--extra otel --extra dev --extra mutate -o requirements/mutate.txt pyproject.toml

$(VENV)/.stamp-build: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "taskmint needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/build.txt
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-build requirements/demo.txt pyproject.toml
	$(INSTALL) -r requirements/demo.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-demo requirements/dev.txt
	$(INSTALL) -r requirements/dev.txt
	@touch $@

$(VENV)-mutate/.stamp: requirements/build.txt requirements/mutate.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-mutate
	$(PIP_MUTATE) --require-hashes -r requirements/build.txt
	$(PIP_MUTATE) --require-hashes --no-build-isolation -r requirements/mutate.txt
	$(PIP_MUTATE) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)-requirements/.stamp:
	$(PYTHON) -m venv $(VENV)-requirements
	$(VENV)-requirements/bin/python -m pip --disable-pip-version-check --quiet install 'pip-tools>=7.5'
	@touch $@
