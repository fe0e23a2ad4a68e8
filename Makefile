# make run: the whole book in one run · make test: everything that has to pass · make help: the rest
# Each installs what it needs; nothing else is required than Python 3.11 or 3.12, make and a C compiler.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=

BIN := $(VENV)/bin
CORE := $(VENV)/.core
TESTS := $(VENV)/.tests
PEERS := $(VENV)/.peers
README := $(BIN)/python -m nbconvert --to markdown --no-input --log-level ERROR --stdout nbs/index.ipynb | sed -E 's,\]\(([0-9a-z_]+\.(ipynb|md)|images/),](nbs/\1,g; s,\]\(\.\./,](,g; s,href="([0-9a-z_]+\.(ipynb|md)),href="nbs/\1,g'
# Pages whose cells read the library and the results, and show nothing else.
PAGES := commands library layouts index

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PYTHONUTF8 := 1

.PHONY: help env run check test test-slow export readme readme-text docs bench clean

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1	/' | expand -t 12
	@echo; echo "ARGS='--text FILE' reach llmbook; PIP_ARGS='...' reach pip, for instance the index that pytorch.org names for CPU builds."

# What a target promises is installed: a test of it may then fail, but never be skipped for want of a package (tests/needs.py).
install = $(BIN)/python -m pip install -qq --disable-pip-version-check --prefer-binary --no-compile $(PIP_ARGS) -c constraints.txt -e ".$(1)"
PROJECT := settings.ini setup.py pyproject.toml constraints.txt

$(CORE): $(PROJECT)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or later is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); two or three minutes the first time."
	$(call install,[web])
	@touch $@

$(TESTS): $(CORE)
	$(call install,[web$(comma)dev$(comma)scale$(comma)quant])
	@touch $@

$(PEERS): $(TESTS)
	$(call install,[web$(comma)peers])
	@touch $@

comma := ,

env: $(TESTS) ## make the environment in $(VENV), with all that `make test` needs

run: $(CORE) ## write text, train a tokenizer and a model, measure them, report; the same command resumes
	$(BIN)/llmbook run --out runs/book --speed auto $(ARGS)

check: $(TESTS) ## seconds: lint, and the rules of the house
	$(BIN)/ruff check --quiet .
	$(BIN)/pytest -q tests/book/test_layout.py

test: check ## lint, rules, every chapter, the fast tests; pytest's line comes last
	$(BIN)/nbdev-test --n-workers 2 --timing
	LLMBOOK_EXTRAS=web,dev,scale,quant $(BIN)/pytest -q -m "not slow and not gpu" --ignore=tests/book/test_layout.py

test-slow: $(PEERS) ## the tests that take longer, and those beside other libraries
	LLMBOOK_EXTRAS=web,dev,scale,quant,peers $(BIN)/pytest -q -m "slow and not gpu"

export: $(TESTS) ## modules from notebooks, clean notebooks, README and the pages that show the library
	$(BIN)/nbdev-export
	cd nbs && for page in $(PAGES); do ../$(BIN)/jupyter execute --inplace $$page.ipynb > /dev/null 2>&1 || { echo "nbs/$$page.ipynb does not run"; exit 1; }; done
	$(BIN)/nbdev-clean
	@$(MAKE) --silent --no-print-directory readme

readme: $(TESTS) ## write README.md from nbs/index.ipynb
	@$(MAKE) --silent --no-print-directory readme-text > .README.tmp && mv .README.tmp README.md

readme-text:
	@$(README)

docs: $(TESTS) ## the site, in _docs (needs quarto)
	@if command -v quarto > /dev/null; then PYTHONPATH=. $(BIN)/nbdev-docs; else echo "The site needs Quarto, from quarto.org: install it and run 'make docs' again."; fi

bench: $(PEERS) ## the benchmarks, a script each
	@for script in benchmarks/*.py; do [ ! -f "$$script" ] || $(BIN)/python "$$script" $(ARGS) || exit 1; done

clean: ## remove what was built; runs/ and $(VENV) stay
	rm -rf _docs _proc nbs/nbdev.yml build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find llmbook tests nbs -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
