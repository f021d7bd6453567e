# Every target that needs the environment runs setup first, which takes a fraction of a second once it is done.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PY := .venv/bin/python
SOURCES := conf flink_jobs udfs models scripts tests

.PHONY: help setup check format test test-pure test-laws test-flink test-e2e demo drill load bench bench-quick bench-features services-up services-down services-status schema docs package lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install system packages, .venv and jars; quick when nothing changed
	@scripts/setup.sh

check: setup ## lint, format check and strict types, as CI does
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy  # strict, by pyproject.toml

format: setup ## sort imports, apply safe fixes and format
	.venv/bin/ruff check --fix --quiet $(SOURCES) || true
	.venv/bin/ruff format $(SOURCES)

test: setup ## all rings, quickest first
	@failed=0; for ring in pure laws flink e2e; do \
	  echo "== tests/$$ring"; $(PY) -m pytest tests/$$ring || failed=1; \
	done; exit $$failed

test-pure: setup ## no JVM, no service
	$(PY) -m pytest tests/pure

test-laws: setup ## long streams cut, restarted, migrated, computed offline
	$(PY) -m pytest tests/laws

test-flink: setup ## jobs on a MiniCluster
	$(PY) -m pytest tests/flink

test-e2e: setup ## real Kafka, Redis, MLflow and Flink
	$(PY) -m pytest tests/e2e

demo: setup ## the whole path on real flights, on this machine
	.venv/bin/headrace demo

drill: setup ## promotions, rollbacks and bad models under load, on services of its own; ARGS='--rate 5000'
	@$(PY) -m scripts.drill $(ARGS)

load: setup ## send made-up payments to the local Kafka; ARGS='--events 1000000 --rate 2000'
	@$(PY) -m scripts.load send $(ARGS)

bench: setup ## every benchmark, checked and measured, about an hour; writes docs/benchmarks.md
	@for name in small_events guarantees latency path_costs kernel checkpoint memory features_stage page; do \
	  echo "== $$name"; $(PY) -m scripts.bench $$name; done

bench-quick: setup ## the benchmarks of the whole job, one round each, under ten minutes
	@$(PY) -m scripts.bench small_events --events 1500000 --plain-events 20000 --rounds 1
	@$(PY) -m scripts.bench guarantees --events 1500000 --rounds 1 --intervals 10s
	@$(PY) -m scripts.bench latency --seconds 30 --rounds 1
	@$(PY) -m scripts.bench path_costs
	@$(PY) -m scripts.bench page

bench-features: setup ## the feature engine measured: kernel, checkpoint, memory, and beside Flink SQL (services up)
	@for name in kernel checkpoint memory features_stage; do $(PY) -m scripts.bench $$name; done

services-up: setup ## start Kafka, Redis, MLflow and Flink in build/local
	@$(PY) -m scripts.services up

services-down: ## stop them; their data stays
	@[ ! -x $(PY) ] || $(PY) -m scripts.services down

services-status: ## say how they are
	@$(PY) -m scripts.services status

schema: setup ## write the JSON Schemas that editors complete conf/ from
	.venv/bin/headrace schema

package: setup ## pack the code into build/headrace.zip, for flink run -pyfs
	@$(PY) -m flink_jobs.package

docs: setup ## write docs/features.md and the tables of README.md, run the examples of docstrings
	$(PY) -m scripts.docs.reference
	$(PY) -m pytest --doctest-modules --doctest-glob='*.md' README.md $(wildcard docs) udfs models scripts/docs scripts/services

lock: ## write requirements.lock from pyproject.toml; ARGS=--upgrade moves versions
	@scripts/lock.sh $(ARGS)

clean: services-down ## stop services and remove what was built; .venv and jars stay
	rm -rf build/local build/test-services build/maven .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
