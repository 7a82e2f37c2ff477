# make demo   a virtual environment, a generated scene, the scene denoised, a report
# make test   the test suite          make lint   ruff          make types   mypy
# make clean  removes what these made, the environment included

PYTHON ?= python3
VENV ?= .venv
DEMO ?= build/demo
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint types clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p' Makefile

# An environment is made again only when what it is made from has changed.
$(VENV)/.pip: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hsidenoise needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade -c constraints.txt pip
	touch $@

$(VENV)/.run: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e . --group dev
	touch $@ $(VENV)/.run

demo: $(VENV)/.run
	$(BIN)/hsidenoise demo $(DEMO) --overwrite
	$(BIN)/hsidenoise run $(DEMO)/scene.tif -o $(DEMO)/clean.tif \
		--reference $(DEMO)/truth.tif --report $(DEMO)/report.html --overwrite

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
