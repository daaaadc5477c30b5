# Two commands to know: `make quickstart` and `make test`. Each makes its own .venv first.
PYTHON ?= python3
.DEFAULT_GOAL := help
.PHONY: help setup quickstart datasets test lint bench clean

help:
	@echo 'make quickstart  weights, data, fine-tune, evaluate, export, serve, agent; resumes where it stopped'
	@echo 'make test        formatting, lint, types, import rules, all tests'
	@echo 'make setup       only the environment: .venv with pinned versions'
	@echo 'make lint        the checks of make test without the tests'
	@echo 'make datasets    rebuild the generated sets of datasets/, byte by byte'
	@echo 'make bench       the measurements of benchmarks/'
	@echo 'make clean       remove .venv and caches; runs/ and models/ stay'

setup:
	@$(PYTHON) tools/setup.py

quickstart: setup
	.venv/bin/llmops quickstart run

datasets: setup
	.venv/bin/python tools/build_datasets.py

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright
	.venv/bin/lint-imports

test: lint
	.venv/bin/pytest

bench: setup
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; .venv/bin/python $$script; done

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache htmlcov .coverage build dist
