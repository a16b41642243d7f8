# Each goal is one command; what it needs and does stands in the script that it calls.
SHELL := /bin/bash
PYTHON ?= python3
ARGS ?=
MINUTES ?= 10
CUTS ?= 65536

.PHONY: help setup demo test faults soak mutants test-brokers test-examples wheel test-wheel docs check format bench fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing, make .venv, build
	@$(PYTHON) scripts/setup

demo: setup ## the main job on a SQLite file: 10,000 jobs from Python, run by C++, every result checked
	@.venv/bin/leveret demo $(ARGS)

test: ## everything, from nothing; STAGES="check cpp ..." runs some of it
	@$(PYTHON) scripts/test $(STAGES)

faults: ## what breaks, breaks while jobs run: SQLite and RabbitMQ, about 2 minutes; ARGS="--seed 7"
	@$(PYTHON) scripts/setup --test
	@.venv/bin/python tests/faults/run.py $(ARGS)

soak: ## the same for MINUTES=10 on each broker; then RabbitMQ sessions cut after each of their first CUTS=65536 bytes
	@$(PYTHON) scripts/setup --test
	@.venv/bin/python tests/faults/run.py --seconds $$(( $(MINUTES) * 60 )) --every 0.1 $(ARGS)
	@CXX=$${CXX:-g++} cmake --preset release >/dev/null && cmake --build build/release --target rabbitmq_cuts_test
	@LEVERET_TEST_CUTS=$(CUTS) build/release/rabbitmq_cuts_test

mutants: ## faults planted in the product, one at a time: each must turn a test red; some 15 minutes
	@$(PYTHON) scripts/setup --test
	@scripts/mutants $(ARGS)

test-brokers: ## what needs a broker, and clusters, against the RabbitMQ of the other Debian release (root)
	@$(PYTHON) scripts/test_brokers $(STAGES)

test-examples: ## the examples for frameworks, against the real ones, from PyPI
	@$(PYTHON) scripts/test_examples $(ARGS)

wheel: ## sdist and manylinux wheel of this Python, in dist/
	@$(PYTHON) scripts/make_wheel

test-wheel: ## wheels built on Debian 12 and 13, each used on a bare one (root)
	@$(PYTHON) scripts/test_wheel $(RELEASES)

docs: ## the guide as a site, in build/site
	@$(PYTHON) scripts/make_docs

check: ## formats, types, lints and house rules
	@$(PYTHON) scripts/setup --test
	@.venv/bin/python scripts/check

format: ## format Python and C++ in place
	@$(PYTHON) scripts/setup --test
	@.venv/bin/python scripts/check --format

bench: ## Leveret beside its peers and the page that it began with, some 30 minutes; ARGS="publish --rounds 3"
	@$(PYTHON) scripts/setup --test
	@.venv/bin/python benchmarks/suite.py $(ARGS)

fuzz: ## what reads other people's bytes: the codec, AMQP properties, SQLite files; ARGS="--seconds 600 rows"
	@$(PYTHON) scripts/setup --test
	@.venv/bin/python fuzz/run.py $(ARGS)

clean: ## remove what was built and .venv
	rm -rf --one-file-system build .venv .setup.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
