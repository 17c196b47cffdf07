# Two commands on a machine that has Python 3.11 or newer and nothing of ours: `make run` opens the page, `make test` tests.
# Interrupted half-way, both go on where they were: a stamp is written when its step is done, not before.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FEDERATE := $(VENV)/federate
SHELL := /bin/sh
.DELETE_ON_ERROR:
.PHONY: run test journeys test-journeys test-flower quick slow check lock sbom clean
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Every package in the version and with the SHA-256 that locks/ says; what another hand put into an index is refused.
LOCKED := $(PIP) --require-hashes --requirement

# A pull that is done already says so at once.
run: $(VENV)/.stamp-run
	$(BIN)/ingle pull smollm2
	@exec $(BIN)/ingle serve

# FAILED_TO=FILE: the command of each item that failed is added to it.
FAILED := $(if $(FAILED_TO),--failed-to=$(FAILED_TO))
# Two processes, a file to each in turn: most tests keep one core busy. A process that crashes ends it, for pytest would wait for ever.
TWO := --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 $(FAILED)

# Every room, on a real model, real servers, a real browser, both databases.
test: $(VENV)/.stamp-test
	@.ci/programs say
	$(BIN)/python -m pytest $(TWO)

# What kills, drowns, drives or starts many processes, other CPUs, long trainings; and Flower, in its own environment.
journeys: test-journeys test-flower

test-journeys: $(VENV)/.stamp-test
	@.ci/programs say
	$(BIN)/python -m pytest -m 'journey and not slow' $(TWO)

test-flower: $(VENV)/.stamp-federate
	$(FEDERATE)/bin/python -m pytest -m '' $(FAILED) tests/federated/test_flower.py tests/contracts/test_transports.py

# Style, types, and the fastest tests: before every commit, within a minute.
quick: $(VENV)/.stamp-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/test_architecture.py tests/core tests/contracts/test_guards.py

# Every act of the disk fails in turn, in each of thirteen journeys: an hour or more. INGLE_FAULTS_EVERY=10 takes every tenth. Then many chance
# examples, others each time, where the other jobs take few and always the same.
slow: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m slow -s
	$(BIN)/python -m pytest $(TWO) --hypothesis-profile slow

check: $(VENV)/.stamp-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file bench/mypy.ini bench

$(VENV)/.stamp-venv: locks/install.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>&1) || found="not there"; \
	  echo "Ingle needs Python 3.11 or newer, and '$(PYTHON)' is $$found." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' can't make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
# A pip from before 2025 fetches a whole wheel to say where it is, and can't go on with one that was killed.
	$(LOCKED) locks/install.lock
	@touch $@

# --no-compile: what is never imported needs no bytecode, which saves 60 MB; the rest is compiled when it is first used.
$(VENV)/.stamp-run: pyproject.toml locks/run.lock $(VENV)/.stamp-venv
	$(LOCKED) locks/run.lock --no-compile
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# What the lock leaves out is PyTorch: this machine's pip says which build (CPU, CUDA) is right for it. --no-deps, because others ask for it.
$(VENV)/.stamp-test: pyproject.toml locks/test.lock $(VENV)/.stamp-venv
	$(LOCKED) locks/test.lock --no-deps
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-federate: pyproject.toml locks/federate.lock $(VENV)/.stamp-venv
	$(PYTHON) -m venv --clear $(FEDERATE)
	PIP_PYTHON=$(FEDERATE)/bin/python $(LOCKED) locks/federate.lock --no-compile
	PIP_PYTHON=$(FEDERATE)/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# UPGRADE=--upgrade: the newest versions, also where those of before would still fit.
lock sbom: $(VENV)/.stamp-lock
	.ci/$@ $(VENV)/lock/bin $(UPGRADE)

$(VENV)/.stamp-lock: locks/lock.lock $(VENV)/.stamp-venv
	$(PYTHON) -m venv --clear $(VENV)/lock
	PIP_PYTHON=$(VENV)/lock/bin/python $(LOCKED) locks/lock.lock
	@touch $@

clean:
	rm -rf $(VENV)
