.DEFAULT_GOAL := help
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: ## .venv from the lock file and missing system libraries; quick when nothing changed
	@scripts/setup.sh

repro: setup ## rebuild what is out of date, print the metrics and the report's path
	@$(PY) -m flows.repro

test: setup ## all tests, the end-to-end run included
	$(PY) -m pytest

lint: setup ## style, types, and dvc.yaml's lists of code
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright
	$(PY) -m flows.code_deps

deps: setup ## rewrite dvc.yaml's lists of code from the imports
	$(PY) -m flows.code_deps --write

benchmark: setup ## rebuild up to the benchmark and print its table
	@$(PY) -m flows.repro benchmark

bench: setup ## measure speed and size against references, record under reports/bench/
	@$(PY) -m bench

report: setup ## rebuild up to the report and print its path
	@$(PY) -m flows.repro report

studies: setup ## run the extra studies listed in params.yaml
	@$(PY) -m flows.repro --studies

doctor: setup ## what is installed, which licensed files are missing, what works without
	@.venv/bin/ecavatar doctor

clean: ## remove caches and logs; data/, reports/ and .venv stay
	rm -rf .pytest_cache .ruff_cache .hypothesis .prefect .cache build *.egg-info
	find ecavatar flows tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup repro test lint deps benchmark bench report studies doctor clean
