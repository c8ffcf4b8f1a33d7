# `make demo` and `make test` work on a fresh clone: the first one used creates .venv and installs into it.
# Another environment: make test VENV=path/to/venv. Another interpreter: make test PYTHON=python3.12.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.rabtriever-installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format clean report docs bench

help:
	@echo "make demo     train, index, evaluate and search on the example data (about 10 minutes)"
	@echo "make test     all tests (under 10 minutes)"
	@echo "make lint     ruff and mypy"
	@echo "make experiments-NAME DATA=FOLDER    one of experiments/NAME.yaml, from training to results (hours)"
	@echo "make docs     the documentation site, in site/"
	@echo "make bench    every stage against the machine's limits and its peers"
	@echo "make report   docs/results.md with its plots and docs/benchmarks.md from their results files"
	@echo "make format   let ruff rewrite what it can"
	@echo "make clean    remove caches and the virtual environment"

# The stamp is written last, so that an interrupted installation is tried again.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3 found; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[eval,export,onnx,openvino,fast,qdrant,milvus,pgvector,serve,langchain,llama-index,haystack,rerankers,mcp,mteb,ray,docs,dev]'
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	@$(BIN)/rabtriever demo

# A process that dies ends the run with the name of its test: with a replacement, xdist 3.8 may wait for ever.
test: $(INSTALLED)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart=0 --durations=10

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

experiments-%: $(INSTALLED)
	@test -n "$(DATA)" || { echo "name the folder of datasets: make experiments-$* DATA=FOLDER" >&2; exit 2; }
	@$(BIN)/python experiments/run.py $* --data "$(DATA)"

docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -d site

report: $(INSTALLED)
	@$(BIN)/python experiments/report.py
	@$(BIN)/python benchmarks/run.py --show benchmarks/results.json > docs/benchmarks.md

# On a machine that does nothing else; half an hour with DATA, a folder of datasets in BEIR layout.
bench: $(INSTALLED)
	@$(BIN)/python benchmarks/run.py $(if $(DATA),--data "$(DATA)") -o benchmark-models/results.json
	@$(BIN)/python benchmarks/regression.py benchmarks/results.json benchmark-models/results.json
	@cp benchmark-models/results.json benchmarks/results.json

format: $(INSTALLED)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
