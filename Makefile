# Everything here works on a fresh machine that has Python 3.11 or newer and make.
#   make demo    install, and mend the bundled pictures into demo/out
#   make test    install, and run every check; what CI runs
#   make check   the checks without the tests
#   make docs    install, and build the documentation into build/site
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch is pinned, so that where a CPU build of that version is found no other is taken.
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

# Makes OpenVINO, and the oneDNN in it and in torch, take this processor for one without AVX-512.
OLDER := OV_CPU_MAX_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX2

.PHONY: demo test older check docs format clean

demo: $(VENV)/.demo
	$(BIN)/python demo/run.py

# The first two take one core each. Tests of one file share what they prepare, and so a process;
# files are begun in the order that tests/conftest.py gives, the longest first.
test: $(VENV)/.test
	$(MAKE) --jobs 2 check older
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

older: $(VENV)/.test
	$(OLDER) $(BIN)/python -m pytest -m processor $$(grep -l mark.processor tests/test_*.py)

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: $(VENV)/.test
	$(BIN)/python docs/build.py

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[fast]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test]'
	$(BIN)/python tests/no_cuda.py
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) demo/out build
