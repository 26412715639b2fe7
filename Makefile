# `make` alone lists what there is. Every target sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= small
WORKERS ?= 2
UV_VERSION := 0.13.8
# A folder of wheels, such as a CPU build of torch, comes before the index where one is given.
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),)
# Where Python is told to keep no compiled modules, every process compiles thousands of them anew: seconds for each task.
# They are kept below .venv then, so that nothing is left beside the sources.
ifneq ($(PYTHONDONTWRITEBYTECODE),)
export PYTHONPYCACHEPREFIX ?= $(CURDIR)/$(VENV)/compiled
unexport PYTHONDONTWRITEBYTECODE
endif
UV := $(VENV)/.uv-$(UV_VERSION)
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)

.PHONY: help setup demo train evaluate test check docs airflow lock clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make .venv with exactly what requirements.lock pins

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "Sosie needs $(PYTHON) on the PATH; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(STAMP): requirements.lock pyproject.toml | $(UV)
	@echo "==> filling $(VENV) (about 2.7 GB with torch)"
	@$(BIN)/uv pip install --python $(BIN)/python $(FIND_LINKS) -r requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -e .
	@rm -f $(VENV)/.installed-* && touch $@

demo: setup  ## Run two simulated hours through the real DAG and print what was found
	@$(BIN)/sosie demo

train: setup  ## Train what is not up to date: PROFILE=small (default, needs no data) or full
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro evaluate@$(PROFILE)

evaluate: setup  ## Measure every trained model on listings that training never saw: PROFILE=small or full
	@$(BIN)/python -m sosie.training.evaluate --profile $(PROFILE)

test: setup  ## Run all tests, offline; WORKERS=3 where there is memory for it
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: setup  ## Lint, format and type-check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: setup  ## Build the documentation into var/site; every link is checked
	@$(BIN)/python -m mkdocs build --strict --quiet && echo "var/site/index.html"

airflow: setup  ## Serve the Airflow UI until Ctrl-C: over the demo's runs, or those of SOSIE_HOME
	@export SOSIE_HOME=$${SOSIE_HOME:-var/demo}; \
	  [ -n "$$SOSIE_LANDING" ] || [ ! -d $$SOSIE_HOME/marketplace ] || export SOSIE_LANDING=$$SOSIE_HOME/marketplace/landing; \
	  $(BIN)/python -m sosie.airflow.stack

lock: $(UV)  ## Pin the newest versions that fit pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --all-extras $(FIND_LINKS) --upgrade --quiet --no-header --no-annotate \
	  --python-version 3.11 | sed -e 's/+cpu//' -e "s/^milvus==.*/& ; platform_machine == 'x86_64'/" > requirements.lock

clean:  ## Remove .venv, var and caches
	rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache .hypothesis
