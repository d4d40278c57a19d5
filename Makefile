PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
KERNELS := service/kernels
DATA ?= data/fer2013.csv
FOLDER ?= runs/fer2013
CHECKPOINT ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint check train evaluate bench clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/dev $(KERNELS)/libkernels-avx2.so  ## Make .venv with all that tests, checks and training need

serve: $(VENV)/serve $(KERNELS)/libkernels-avx2.so  ## Serve the shipped checkpoint on http://localhost:8000
	$(BIN)/python -m service

test: setup  ## Run the tests that take seconds
	$(BIN)/pytest

lint: setup  ## Run ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test  ## Run ruff, mypy and these tests: before each commit

train: $(VENV)/dev  ## Train on DATA=csv or folder; again goes on where it stopped
	$(BIN)/python -m training train --data $(DATA) --folder $(FOLDER)

evaluate: $(VENV)/dev  ## Score CHECKPOINT, or the shipped one, on DATA
	$(BIN)/python -m training evaluate --data $(DATA) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))

bench:  ## Measure the service beside its peers, for hours; ARGS="--servers ours,mosec" for less
	$(PYTHON) -m benchmarks.serving $(ARGS)

clean:  ## Remove .venv and what tools left behind; runs/ and checkpoints/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	rm -f $(KERNELS)/libkernels*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make each set-up happen once, and again when its inputs change. torch goes first and
# by itself: pip then takes a CPU build that lies at hand, and the index's build elsewhere.
$(VENV)/serve: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt --editable .
	$(BIN)/python -m service.pictures.model_file || echo "the service needs it to find faces; FER_DETECTOR=none serves without"
	touch $@

$(KERNELS)/libkernels-avx2.so: $(wildcard $(KERNELS)/*.c $(KERNELS)/*.h $(KERNELS)/*.sh)
	sh $(KERNELS)/compile.sh

$(VENV)/dev: $(VENV)/serve
	$(BIN)/pip install --quiet -c constraints.txt --editable '.[training,dev]'
	touch $@
