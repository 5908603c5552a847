# Every target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROUNDS ?= 3
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

COMPILE := $(BIN)/pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench lock schema clean

help:  ## Show the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run  ## Serve the AsyncAPI of cortex.yaml on http://localhost:8888/sentiment.
	@exec $(BIN)/python -m project.asyncapi

test: $(VENV)/.test  ## Run the tests, with branch coverage.
	@$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/.test  ## Check style and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy project tests async_requests.py

format: $(VENV)/.test  ## Rewrite the code in the project's style.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.bench  ## Measure against peers (half an hour): DEV=<labelled file>; needs wrk.
	@test -f "$(DEV)" || { echo "make bench DEV=<labelled file, such as SST-2's dev.tsv>"; exit 2; }
	@command -v wrk >/dev/null || { echo "wrk is not on the path"; exit 2; }
	@$(VENV)-bench/bin/python -m bench.parity "$(DEV)" --output docs/performance
	@$(VENV)-bench/bin/python -m bench.engine "$(DEV)" --rounds $(ROUNDS) --output docs/performance
	@$(VENV)-bench/bin/python -m bench.http "$(DEV)" --rounds $(ROUNDS) --output docs/performance
	@$(VENV)-bench/bin/python -m bench.report docs/performance

lock: $(VENV)/.run  ## Pin what pyproject.toml asks for; UPGRADE=--upgrade takes the newest.
	@$(PIP) pip-tools
	@$(COMPILE) $(UPGRADE) --output-file requirements.txt pyproject.toml
	@$(COMPILE) $(UPGRADE) --extra train --output-file project/sentiment/requirements.txt pyproject.toml
	@$(COMPILE) $(UPGRADE) --extra train --extra test --output-file requirements-test.txt pyproject.toml
	@# The local tag of a CPU build ("+cpu") is no version that everyone can install.
	@sed -i "s/+cpu$$//" requirements*.txt project/sentiment/requirements.txt

schema: $(VENV)/.run  ## Write the JSON schemas of cortex.yaml and cluster.yaml anew.
	@$(BIN)/python -m project.asyncapi.schema docs

clean:  ## Remove the environment and what was measured; the queue in .asyncapi stays.
	rm -rf $(VENV) $(VENV)-bench .coverage* .*_cache .hypothesis

$(VENV)/bin/python:
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements.txt | $(VENV)/bin/python
	@echo "installing requirements.txt"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.test: requirements-test.txt $(VENV)/.run
	@echo "installing requirements-test.txt"
	@$(PIP) -r requirements-test.txt
	@touch $@

# An environment of its own: the peers must not decide what the product or its tests run with.
$(VENV)/.bench: bench/requirements.txt $(VENV)/.run
	@$(PYTHON) -m venv $(VENV)-bench
	@$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check \
		-r bench/requirements.txt
	@touch $@
