# Everything runs in .venv, which the first target that needs it makes from requirements.lock.
# `make test ARGS="-k loss"` and `make study ARGS="--help"` hand their ARGS on.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
INSTALLED := $(VENV)/.installed
INSTALLING := $(VENV)/.installing

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv study tables bench gpu-bundle notebooks students slides site test recipes faults \
    lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

venv: $(INSTALLED) ## make .venv with the exact versions of requirements.lock

study: $(INSTALLED) ## run, or continue, the whole study
	$(RUN) gcl_core study $(ARGS)

tables: $(INSTALLED) ## write the tables from finished runs
	$(RUN) gcl_core tables $(ARGS)

bench: $(INSTALLED) ## measure the speed of a training step on this machine
	$(RUN) gcl_core bench $(ARGS)

gpu-bundle: $(INSTALLED) ## make a folder for a GPU machine without network; ARGS="--dataset cifar10:PATH"
	$(BIN)/python gpu/bundle.py $(ARGS)

notebooks: $(INSTALLED) ## synchronise and execute the notebooks
	$(RUN) gcl_core notebooks $(ARGS)

students: $(INSTALLED) ## copy the notebooks without outputs and solutions
	$(RUN) gcl_core students $(ARGS)

slides: $(INSTALLED) ## make ten slides from the lab's pictures, build/slides.html
	$(BIN)/python docs/slides/make.py $(ARGS)

# Figures and results come from the files as they are committed; nothing is executed. A warning is an
# error: a dead link, an image without an alternative text, anything that needs a network.
site: $(INSTALLED) ## render notebooks, reference and results as web pages
	rm -rf build/site docs/api
	$(RUN) sphinx --quiet --fail-on-warning --fresh-env --conf-dir docs \
	    --doctree-dir build/doctrees $(ARGS) . build/site
	@echo build/site/index.html

# A process for each core; ARGS="-n 0" runs them in one, as for a debugger.
test: $(INSTALLED) ## run the tests
	$(RUN) pytest --numprocesses auto --dist loadfile $(ARGS)

recipes: $(INSTALLED) ## train all recipes of Table 2 on small made data, each killed once and continued
	$(RUN) pytest --numprocesses auto tests/test_recipes.py -m "every or not every" $(ARGS)

# As root, for it mounts small disks; hours, or ARGS="split --trials 4". See docs/reliability.md.
faults: $(INSTALLED) ## kill every command that writes, fill its disk, cut its network
	$(BIN)/python tests/faults.py $(ARGS)

lint: $(INSTALLED) ## check style, formatting, types and spelling
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(BIN)/codespell

format: $(INSTALLED) ## format the code and mend what ruff can mend
	$(RUN) ruff check --fix-only .
	$(RUN) ruff format .

# The lock is one resolution for all systems and Python versions that pyproject.toml allows; pins
# that still fit stay as they are. ARGS=--upgrade takes the newest versions instead. It must not
# wait for $(INSTALLED): that would first install the lock that is about to change.
lock: ## pin requirements.lock anew after a change of pyproject.toml
	@test -x $(BIN)/uv || $(MAKE) venv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	    --fork-strategy fewest --custom-compile-command "make lock" \
	    --quiet --output-file requirements.lock $(ARGS)

clean: ## remove caches and build products; .venv, runs and results stay
	rm -rf build dist docs/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# $(INSTALLED) is touched last. While $(INSTALLING) is there an installation is going on, or was
# interrupted: then what it left cannot be trusted, and the next one starts from nothing.
$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || \
	    { echo 'gcl: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo 'gcl: $(PYTHON) cannot make virtual environments: apt install python3-venv' >&2; exit 1; }
	@if [ -e $(INSTALLING) ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(INSTALLING)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --disable-pip-version-check --requirement requirements.lock
	$(RUN) pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@mv $(INSTALLING) $(INSTALLED) && touch $(INSTALLED)
