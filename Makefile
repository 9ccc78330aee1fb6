# Every command of a working day; `make help` lists them.
# The first that runs and is new enough: a name on the PATH alone may be a version manager's empty shim.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BROKER = $(PYTHON) deploy/kafka/broker.py
FOR ?= 10
MACHINE = kernel or broker or guest

BPF = producers/bpf_programs
BPF_TESTS = tests/producers/bpf
BPF_BUILT = $(patsubst %.c,%.o,$(wildcard $(BPF)/*.bpf.c $(BPF_TESTS)/*.bpf.c)) $(foreach name,ring counter,$(BPF)/$(name)-x86_64.so $(BPF)/$(name)-aarch64.so)

.PHONY: help setup setup-kafka setup-trace setup-rules setup-alert setup-guest bpf guest-bundle lab matrix run test test-computing test-machine bench kafka kafka-stop

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.done ## create .venv with everything in it

# Debian and its kin keep ensurepip in a package of its own, and without it leave half an environment behind.
.venv/.done: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer was found: install one, or give PYTHON=path" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends $$package; \
	  else echo "$(PYTHON) cannot make virtual environments: install $$package (as root: apt-get install $$package)" >&2; exit 1; fi; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

setup-kafka: ## install Java and Maven where missing (root), fetch the broker's jars
	@if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends default-jre-headless maven; \
	  else echo "a Java runtime (17 or newer) and Maven are needed; install them or run this as root on Debian" >&2; exit 1; fi; fi
	@$(BROKER) setup

setup-trace: ## install trace-cmd where missing (root on Debian); elsewhere the tests that need it are skipped
	@if ! command -v trace-cmd >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends trace-cmd; \
	  else echo "trace-cmd is not there: tests against it will be skipped" >&2; fi; fi

# For its program alone: a service that the package brings is neither started now nor at the next boot.
program = if [ -d /run/systemd/system ]; then systemctl -q mask $(1); fi; \
	    apt-get update -q && apt-get install -y -q --no-install-recommends $(1); \
	    if [ -d /run/systemd/system ]; then systemctl -q unmask $(1); systemctl -q disable $(1); fi

setup-alert: ## install Alertmanager where missing (root on Debian); elsewhere the tests that need it are skipped
	@if ! command -v prometheus-alertmanager >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    $(call program,prometheus-alertmanager); \
	  else echo "prometheus-alertmanager is not there: tests against it will be skipped" >&2; fi; fi

setup-rules: ## install promtool where missing (root on Debian); elsewhere the tests of alert rules are skipped
	@if ! command -v promtool >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    $(call program,prometheus); \
	  else echo "promtool is not there: tests of alert rules will be skipped" >&2; fi; fi

GUEST = qemu-system-x86_64 busybox cpio depmod mkfs.ext4 gcc

setup-guest: ## install QEMU and fetch Debian's kernel and headers for guests (root on Debian); elsewhere the tests in guests are skipped
	@if (for p in $(GUEST); do command -v $$p || exit 1; done) >/dev/null; then :; else \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -q && \
	    apt-get install -y -q --no-install-recommends qemu-system-x86 busybox-static cpio kmod e2fsprogs gcc libelf1; \
	  else echo "QEMU or a tool of its guests is not there: tests in guests will be skipped" >&2; fi; fi
	@$(PYTHON) -m tests.guest._module || echo "tests in guests will be skipped" >&2

# What is built is in the wheel and not in git: a machine that runs the agent needs no compiler, and a reader of the source
# sees no bytes that could differ from it. Both kinds are for any machine of their architecture, whatever builds them.
bpf: ## compile the BPF programs, the readers of their rings and of the CPU's counter; install clang, lld and libbpf where missing (root)
	@if ! command -v clang >/dev/null || ! command -v ld.lld >/dev/null || ! command -v llvm-strip >/dev/null \
	    || ! test -e /usr/include/bpf/bpf_helpers.h; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -y -q --no-install-recommends clang llvm lld libbpf-dev; \
	  else echo "clang, llvm, lld and libbpf's headers are needed; install them or run this as root on Debian" >&2; exit 1; fi; fi
	@$(MAKE) --no-print-directory $(BPF_BUILT)

# The headers of linux/ and bpf/ are the same everywhere, asm/ only lies elsewhere on each architecture.
$(BPF)/%.bpf.o: $(BPF)/%.bpf.c $(wildcard $(BPF)/*.h)
	clang -target bpf -mcpu=v3 -O2 -g -Wall -Werror -idirafter /usr/include/$$(uname -m)-linux-gnu -c $< -o $@
	llvm-strip -g $@

$(BPF_TESTS)/%.bpf.o: $(BPF_TESTS)/%.bpf.c
	clang -target bpf -mcpu=v3 -O2 -g -Wall -Werror -idirafter /usr/include/$$(uname -m)-linux-gnu -c $< -o $@
	llvm-strip -g $@

# No C library is linked: what is used of it is found in the process that loads them, so one machine can build for both.
shared = clang --target=$(1)-linux-gnu -std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -fPIC -shared -nostdlib -fuse-ld=lld $< -o $@

$(BPF)/%-x86_64.so: $(BPF)/%.c
	$(call shared,x86_64)

$(BPF)/%-aarch64.so: $(BPF)/%.c
	$(call shared,aarch64)

guest-bundle: setup ## the agent as one file for guests, dist/hypocenter-agent.pyz: any Python >= 3.11 runs it, nothing is installed
	@$(MAKE) --no-print-directory bpf || echo "there will be no BPF programs in it" >&2
	.venv/bin/python deploy/bundle/bundle.py

lab: guest-bundle setup-guest ## boot a guest, freeze one of its CPUs, show what it said and what its host knew (root; a minute)
	.venv/bin/python -m tests.guest.lab

matrix: guest-bundle setup-guest ## make one failure after another in a guest, and say who owned each, with its host and without (root; two minutes)
	.venv/bin/python -m tests.guest.matrix

run: setup ## agent, collector and audit on this machine for FOR=10 seconds; KAFKA=host:port goes through a broker
	.venv/bin/hypocenter trial --for $(FOR) $(if $(KAFKA),--kafka $(KAFKA))

test: setup setup-kafka setup-trace setup-rules setup-alert setup-guest ## lint, types and every test
	@$(MAKE) --no-print-directory bpf || echo "tests of BPF programs will be skipped" >&2
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	@$(MAKE) --no-print-directory -j2 test-computing test-machine

# There is one kernel log and one broker: what needs them runs one after another, and mostly waits. All else goes beside it.
test-computing:
	@mkdir -p var; .venv/bin/python -m pytest -m 'not ($(MACHINE))' >var/$@.txt 2>&1; status=$$?; cat var/$@.txt; exit $$status

test-machine:
	.venv/bin/python -m pytest -m '$(MACHINE)'

bench: setup ## measure
	.venv/bin/python -m benchmarks

kafka: setup-kafka ## start a broker on this machine and print its address
	@$(BROKER) start

kafka-stop: ## stop it
	@$(BROKER) stop
