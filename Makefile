# make run    install what is needed and start the workbench
# make test   install the test tools and a browser where absent, and run every test
# make check  formatting, lint, types, the README's table of methods
# make table  write that table anew from the methods' declarations

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run setup test test-setup check table format demo screenshots bench clean

run: setup
	$(BIN)/python app.py $(ARGS)

setup: $(VENV)/.runtime

$(VENV)/.runtime: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/.tests: tests/requirements.txt $(VENV)/.runtime
	$(PIP) -r tests/requirements.txt
	touch $@

test-setup: $(VENV)/.tests
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || command -v google-chrome >/dev/null || { \
	  echo "No Chromium found: installing the system's"; \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq chromium; }

# Browsers wait for the app and the app for browsers: two of each, a file of tests at a time, after
# all other tests.
test: test-setup
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --ignore tests/e2e
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/e2e
endif

check: $(VENV)/.tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m merging.commands.table README.md --check

table: setup
	$(BIN)/python -m merging.commands.table README.md

format: $(VENV)/.tests
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: setup
	$(BIN)/python -m merging demo build build/demo

screenshots: test-setup
	$(BIN)/python -m tests.e2e.screenshots

bench: setup
	$(BIN)/python -m benchmarks.peers

clean:
	rm -rf $(VENV) build
