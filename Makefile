# make demo | test | test-all | test-rest | test-architectures | test-cluster | test-avx2 | check | format | clean. Each sets up what it needs by itself, in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
# Tests whose results hang on the processor's arithmetic.
NUMERIC := tests/laws tests/methods tests/quantizers tests/model tests/engines tests/networks tests/test_processor.py
# PyTorch, oneDNN, MKL and Numba as on a processor without AVX-512. Numba adds the features of the real processor to
# those of the named one unless it is given some; none is enough.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=

.PHONY: demo test test-all test-rest test-architectures test-cluster test-avx2 check format clean

demo: $(VENV)/.core
	$(BIN)/srquant demo --output demo-output

# All laws, and of large products of parameters every pair of values.
test: $(VENV)/.dev
	$(PYTEST) -m "not exhaustive"

# The whole products too.
test-all: $(VENV)/.dev
	$(PYTEST)

# What test leaves out, but for test-architectures.
test-rest: $(VENV)/.dev
	$(PYTEST) -m "exhaustive and not architectures"

# Networks of other people's from weights to a larger picture in both engines, a minute each.
test-architectures: $(VENV)/.dev
	$(PYTEST) -m architectures

# A bench on a Ray cluster of two nodes of this machine, one of them lost. Installs Ray, 240 MB.
test-cluster: $(VENV)/.cluster
	$(BIN)/python -m pytest tests/bench/test_cluster.py

# The numeric tests as on an older x86-64 processor.
test-avx2: $(VENV)/.dev
	$(AVX2) $(PYTEST) -m "not exhaustive" $(NUMERIC)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_floors.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-output build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable ".[fast]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.core

$(VENV)/.cluster: $(VENV)/.dev
	$(PIP) --editable ".[cluster]"
	touch $@
