# make run: the whole book in one run · make test: everything that has to pass · make help: the rest
# Both make the same environment first; nothing else is needed than Python 3.11 or 3.12, make and a C compiler.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=

# The extras that the tests and the main job use now; the others are for those who want them.
EXTRAS := dev,scale
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
README := $(BIN)/python -m nbconvert --to markdown --no-input --log-level ERROR --stdout nbs/index.ipynb | sed -E 's,\]\(([0-9a-z_]+\.(ipynb|md)|images/),](nbs/\1,g; s,\]\(\.\./,](,g'

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PYTHONUTF8 := 1

.PHONY: help env run test test-slow readme readme-text docs bench clean

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1	/' | expand -t 12
	@echo; echo "ARGS='--text FILE' reach llmbook; PIP_ARGS='...' reach pip, for instance the index that pytorch.org names for CPU builds."

env: $(STAMP) ## make the environment in $(VENV)

$(STAMP): settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or later is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); two or three minutes the first time."
	$(BIN)/python -m pip install -qq --disable-pip-version-check --prefer-binary --no-compile $(PIP_ARGS) -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

run: env ## write text, train a tokenizer and a model, measure them, report; again: go on from there
	$(BIN)/llmbook run --out runs/book --speed auto $(ARGS)

test: env ## lint, layout, every chapter, the fast tests; pytest's line comes last
	$(BIN)/ruff check --quiet .
	$(BIN)/pytest -q tests/book/test_layout.py
	$(BIN)/nbdev-test --n-workers 2 --timing
	$(BIN)/pytest -q -m "not slow and not gpu" --ignore=tests/book/test_layout.py

test-slow: env ## the tests that take longer
	$(BIN)/pytest -q -m "slow and not gpu"

readme: env ## write README.md from nbs/index.ipynb
	@$(MAKE) --silent --no-print-directory readme-text > .README.tmp && mv .README.tmp README.md

readme-text:
	@$(README)

docs: env ## the site, in _docs (needs quarto)
	@if command -v quarto > /dev/null; then $(BIN)/nbdev-docs; else echo "The site needs Quarto, from quarto.org: install it and run 'make docs' again."; fi

bench: env ## the benchmarks, a script each
	@for script in benchmarks/*.py; do [ ! -f "$$script" ] || $(BIN)/python "$$script" $(ARGS) || exit 1; done

clean: ## remove what was built; runs/ and $(VENV) stay
	rm -rf _docs _proc nbs/nbdev.yml build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find llmbook tests nbs -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
