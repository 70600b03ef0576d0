# `make demo` and `make test` are all a newcomer needs; both install what they use into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/demo
# Processes that share the tests; each wants a core and about 4 GB.
WORKERS ?= 2

.PHONY: demo test test-slow lint clean

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/python launch/tpu_train.py --config=configs/cora.py --workdir=$(WORKDIR)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest tests -c tests/pytest.ini --rootdir=. -n $(WORKERS) --dist loadfile

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest tests -c tests/pytest.ini --rootdir=. --slow

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs
