# Every command of a working day; `make help` lists them.
# The first that runs and is new enough: a name on the PATH alone may be a version manager's empty shim.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BROKER = python3 deploy/kafka/broker.py
RUNNING = $(if $(KAFKA),--kafka $(KAFKA),--log var/log)

.PHONY: help setup setup-kafka run test bench kafka kafka-stop

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.done ## create .venv with everything in it

.venv/.done: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer was found; install it or give PYTHON=path" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q -e '.[dev]'
	@touch $@

setup-kafka: ## install Java and Maven where missing (root), fetch the broker's jars
	@if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends default-jre-headless maven; \
	  else echo "a Java runtime (17 or newer) and Maven are needed; install them or run this as root on Debian" >&2; exit 1; fi; fi
	@$(BROKER) setup

run: setup ## agent, collector and audit together on this machine; KAFKA=host:port goes through a broker
	.venv/bin/hypocenter trial --lake var/lake $(RUNNING)

test: setup setup-kafka ## lint, types and every test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest

bench: setup ## measure
	.venv/bin/python -m benchmarks

kafka: setup-kafka ## start a broker on this machine and print its address
	@$(BROKER) start

kafka-stop: ## stop it
	@$(BROKER) stop
