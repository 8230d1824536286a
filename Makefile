# Needs: python3 (>= 3.11) with venv, make, git. On a bare Debian or Ubuntu: apt install make python3-venv git
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
PEERS := tests/benchmarks/peers/requirements.txt
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
.DEFAULT_GOAL := help
SHELL := /bin/bash
# `make -f /elsewhere/Makefile` and `make -C` must both work from any path.
ifneq ($(abspath $(CURDIR))/,$(ROOT))
$(error run it as: make -C $(ROOT) $(MAKECMDGOALS))
endif

IMAGES ?=
OUT ?= runs/demo
TEST_PROCESSES ?= 2

.PHONY: help setup demo test test-slow check bench bench-env test-peers results wheel clean

help:
	@echo "make demo                  train, measure, reload; report in runs/demo/report.html (IMAGES=folder: on your own)"
	@echo "make test                  the test suite, without the long runs"
	@echo "make test-slow             the long runs: ten random kills and what else is marked slow"
	@echo "make check                 ruff, pyright, import contracts"
	@echo "make bench                 ours against its peers, interleaved; figures in runs/bench (BENCH=startup: one of them)"
	@echo "make results IMAGES=folder SAR=folder  the learning studies on photographs, on radar pictures; resumable; docs/results"
	@echo "make bench-env             peers that need an environment of their own, for make bench: litdata, MosaicML, Energon"
	@echo "make test-peers            in that environment: the real Energon opens our shards"
	@echo "make wheel                 dist/*.whl"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing. Try: apt install python3 python3-venv"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "the venv module is incomplete. Try: apt install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install -q uv==$(UV_VERSION)
	@$(UV) pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/mmzoo demo --out "$(OUT)" $(if $(IMAGES),--images "$(IMAGES)")

# Two processes of one thread each, where one of two threads waits for small operators most of the time.
# Several tests run two ranks at once: threads that spin while they wait would slow all of them down.
test: $(STAMP)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} \
		$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/python -m pytest tests/test_architecture.py

# With the peers of bench-env where they were installed.
bench: $(STAMP)
	@$$(test -f $(BENCH_STAMP) && echo $(BENCH_VENV) || echo $(VENV))/bin/python -m tests.benchmarks $(BENCH)

bench-env: $(BENCH_STAMP)

$(BENCH_STAMP): $(STAMP) $(PEERS)
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@$(UV) pip install -q --python $(BENCH_VENV)/bin/python -c constraints.txt -e '.[dev]'
	@$(UV) pip install -q --python $(BENCH_VENV)/bin/python --no-deps -r $(PEERS)
	@touch $@

test-peers: $(BENCH_STAMP)
	@$(BENCH_VENV)/bin/python -m pytest tests/data_engine/test_tar_sources.py -k real_energon

# Long grids of short trainings; what is done is kept, so they may be stopped and started again.
results: $(STAMP)
	@test -n "$(IMAGES)$(SAR)" || { echo "name the labelled photographs, the radar pictures, or both: make results IMAGES=folder SAR=folder"; exit 2; }
	@test -z "$(IMAGES)" || $(BIN)/python -m eval_suites.studies evotok_small --images "$(IMAGES)" --report docs/results/evotok_small
	@test -z "$(SAR)" || $(BIN)/python -m eval_suites.studies crossearth_sar_small --data "$(SAR)" --report docs/results/crossearth_sar_small

wheel: $(STAMP)
	@$(UV) build --wheel --python $(BIN)/python

clean:
	rm -rf runs dist .pytest_cache .ruff_cache .hypothesis
