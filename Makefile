# `make demo` and `make test` set up everything they need first; nothing is installed outside .venv without saying so.
.DEFAULT_GOAL := help
BIN := .venv/bin
# A rig is a dozen processes. Where a machine forbids compiled modules, each of them compiles all it imports again: 1.1 s
# of CPU instead of 0.55 s for the supervisor, 8 s instead of 4 s for the policy.
unexport PYTHONDONTWRITEBYTECODE
TOGETHER := --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: help setup demo test all-tests check bench interop mutants clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

setup: ## virtual environment in .venv, system libraries checked
	@bash scripts/setup.sh

demo: setup ## the whole runtime on a simulated rig; ends with outputs/demo/report.html
	@$(BIN)/aloha demo $(ARGS)

test: setup ## the test suite, less the longest rigs: under ten minutes on two quiet cores
	@$(BIN)/python -m pytest -m "not long" $(TOGETHER) $(ARGS)

all-tests: setup ## every test
	@$(BIN)/python -m pytest $(TOGETHER) $(ARGS)

check: setup ## ruff, mypy, import directions, known vulnerabilities (AUDIT=required: fail where none can be looked up)
	@$(BIN)/ruff check aloha_runtime tests scripts && $(BIN)/ruff format --check aloha_runtime tests scripts
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/contract
	@$(BIN)/python scripts/audit.py

bench: setup ## every benchmark, as tables
	@$(BIN)/aloha bench all $(ARGS)

interop: setup ## the emulated chain and our datasets judged by LeRobot, in an environment of its own
	@bash scripts/interop.sh

mutants: setup ## one deliberate defect after the other: each must make its test fail (ARGS: parts of names)
	@$(BIN)/python scripts/mutants.py $(ARGS)

clean: ## remove the environments and outputs
	rm -rf .venv .venv-interop .venv-audit outputs
