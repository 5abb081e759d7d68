# What a contributor does. Needs make and Python 3.10 or newer; everything else goes into .venv.

.PHONY: help train test test-versions fuzz mutants lint bench gpu clean

# The first of these that is new enough makes the environment; PYTHON=… names one instead, whose
# environment bears its version: with PYTHON=python3.12, .venv-3.12.
PYTHON ?=
CANDIDATES = $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python3.10)

VENV := .venv
ifneq ($(PYTHON),)
    VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    VENV := .venv-$(or $(VERSION),$(error PYTHON=$(PYTHON) does not run))
endif
IN_VENV := $(VENV)/bin/python

# A test that takes longer ends its process, whatever it waits for; pytest then says which it was.
HANGS = -o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true --max-worker-restart 0

help:
	@echo "make train           train a network on scikit-learn's digits"
	@echo "make test            run every test (ARGS=… go to pytest)"
	@echo "make test-versions   run a part on every other Python, and on the oldest dependencies"
	@echo "make fuzz            random files, calls and commands (ARGS=\"--minutes 10\")"
	@echo "make mutants         change single tokens at random: do tests notice? (ARGS=\"--count 100 --seed 7\")"
	@echo "make lint            ruff (format and rules) and mypy"
	@echo "make bench           the benchmarks (ARGS=--quick: under two minutes)"
	@echo "make gpu             tests and benchmarks on a GPU, by the machine's own python3"
	@echo "make clean           remove what the others made, but not runs/"
	@echo "PYTHON=python3.12    with any of these: that Python, in an environment of its own"

train: $(VENV)/.plot
	@$(IN_VENV) -m gpumlp train digits

test: $(VENV)/.test
	$(IN_VENV) -m pytest --numprocesses auto --dist loadfile $(HANGS) $(ARGS)

test-versions: $(VENV)/.test
	$(IN_VENV) -m tests.versions $(ARGS)

fuzz: $(VENV)/.test
	$(IN_VENV) -m tests.fuzz $(ARGS)

mutants: $(VENV)/.test
	$(IN_VENV) -m tests.mutants $(ARGS)

lint: $(VENV)/.test
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m mypy

bench: $(VENV)/.bench
	$(IN_VENV) -m benchmarks --json .benchmarks/figures.json $(ARGS)

# For a machine that has everything but a network: no environment is made, nothing is installed.
gpu:
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(or $(PYTHON),python3) -m benchmarks.gpu $(ARGS)

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks .mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp stands for an installed set of extras, plus CuPy for the NVIDIA driver that is found.
# Without a driver the tests still want a CuPy, to hold the stand-in against its names.
$(VENV)/.plot: EXTRAS = plot
$(VENV)/.test: EXTRAS = test
$(VENV)/.test: WITHOUT_DRIVER = cupy
$(VENV)/.bench: EXTRAS = bench

$(VENV)/.plot $(VENV)/.test $(VENV)/.bench: pyproject.toml $(VENV)/.made
	@cupy=$$($(IN_VENV) -I gpumlp/backend/cuda/driver.py); cupy=$${cupy:-$(WITHOUT_DRIVER)}; \
	extras="$(EXTRAS)$${cupy:+,$$cupy}"; \
	echo "Installing gpumlp[$$extras] into $(VENV)"; \
	$(IN_VENV) -m pip install --quiet "pip>=21.3" && \
	$(IN_VENV) -m pip install --editable ".[$$extras]"
	@touch $@

$(VENV)/.made:
	@for python in $(CANDIDATES); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$($$python --version)"; \
	        $$python -m venv $(VENV) && touch $@; \
	        exit; \
	    fi; \
	done; \
	echo "gpumlp needs Python 3.10 or newer, and none of these is: $(CANDIDATES)." \
	    "Name one: make PYTHON=/path/to/python3 …" >&2; \
	exit 1
