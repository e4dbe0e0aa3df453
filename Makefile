# SPDX-License-Identifier: GPL-2.0-or-later
# Every target sets up what it needs first. On a machine without make: ./run <target>

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-shell test check unit hosts lab-tests openrpc bench boots mutants bare-root soak fuzz clean distclean

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

setup: ## distribution packages, .venv, kernels for guests (idempotent)
	@sh contrib/setup/setup.sh

demo: setup ## a real VM by JSON-RPC on a private host, then everything removed
	@$(PYTHON) -m contrib.demo

demo-shell: setup ## the same host left running, with a shell in which `vdsm status` works
	@$(PYTHON) -m contrib.demo --shell

test: setup ## all checks and tests
	@$(PYTHON) -m contrib.checks.tests

check: setup ## lint, types, floors, sizes, unit tests: about a minute
	@$(PYTHON) -m contrib.checks lint
	@$(PYTEST) -q -n 2 tests/unit

unit: setup ## unit tests only
	@$(PYTEST) -q tests/unit

hosts: setup ## tests on private hosts
	@$(PYTHON) -m contrib.checks.tests hosts

lab-tests: setup ## tests on micro-VMs with kernels of their own
	@$(PYTHON) -m contrib.checks.tests lab

openrpc: setup ## write the pages anew that are made from the code
	@$(PYTHON) -m vdsm.api.openrpc > docs/api/openrpc-0.1.json
	@$(PYTHON) -m vdsm.api.coverage > docs/api/coverage.md
	@$(PYTHON) -m vdsm.api.errors_page > docs/api/errors.md
	@$(PYTHON) -m vdsm.api.event_catalogue > docs/events.md
	@$(PYTHON) -m contrib.checks.settings_page > docs/settings.md

bench: setup ## figures of docs/benchmarks.md
	@$(PYTHON) -m contrib.benchmarks

BOOTS := 60
boots: setup ## do micro-VMs come up beside a busy core, and how fast (BOOTS=60)
	@$(PYTHON) -m contrib.benchmarks.boots $(BOOTS)

# mutmut is in a folder of its own: only this needs it
AREA := storage
mutants: setup ## do unit tests see broken code (AREA=virt, storage, network, hooking, rpc, host, root or common)
	@nice $(PYTHON) -m contrib.checks.mutants $(AREA)

bare-root: setup ## all tests twice in a minimal Debian that has only git, while apt runs there (needs debootstrap)
	@$(PYTHON) -m contrib.checks.bare_root --beside-apt

# each round kills processes at other moments; stops at the first round that fails
ROUNDS := 50
SOAKED = tests/hosts/test_crash_*.py tests/hosts/test_attack.py tests/hosts/test_wrong_input.py tests/lab/test_power_cuts.py
SOAKED += $$(grep -rl '^from hypothesis' tests/unit --include='test_*.py')
soak: setup ## matrices and campaigns in full, again and again (ROUNDS=50): hours
	@for round in $$(seq 1 $(ROUNDS)); do \
		echo "round $$round of $(ROUNDS)"; VDSM_SOAK=1 $(PYTEST) -q $(SOAKED) || exit 1; \
	done

# atheris is in a folder of its own: only campaigns need it
FUZZ_S := 600
fuzz: setup ## coverage-guided fuzzing of what comes over the wire (FUZZ_S=600)
	@[ -d .cache/atheris ] || .venv/bin/pip install -q --target .cache/atheris atheris==3.0.0
	@PYTHONPATH=.cache/atheris $(PYTHON) -m contrib.fuzz --seconds $(FUZZ_S) --keep

clean: ## remove private hosts, logs and caches of tools
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m contrib.lab down --all; fi
	@rm -rf logs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find vdsm storage network hooks contrib tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also what setup put into the checkout
	@rm -rf .venv .cache
