# Everything starts from a plain Debian 12 with make, git, python3 (3.11) and python3-venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: venv profile test tiny shaders lint types layers check bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

profile: venv
	$(BIN)/adaptive profile

test: venv
	$(BIN)/python -m pytest

tiny: venv
	$(BIN)/python -m pytest tests/test_tiny.py

shaders: venv
	$(BIN)/python adaptive_compute/shaders/compile.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

layers: venv
	$(BIN)/python tests/layers.py

check: test lint types layers

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
