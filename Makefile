# Two commands: `make demo` and `make test`. Both set up what they need, from pinned versions.
#   PYTHON=python3.12 make test    another Python (3.11, 3.12 and 3.13 are supported)
#   VENV=/some/where make demo     another place for the virtual environment
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN = $(VENV)/bin

.PHONY: demo test lint install
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-faces
	$(BIN)/hyper_bids demo $(DEMO)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports

install: $(VENV)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	{ echo "Python 3.11, 3.12 or 3.13 is needed; give one with PYTHON=..., such as PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	{ echo "No virtual environment could be made; on Debian and Ubuntu, install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt version | $(BIN)/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	@touch $@

# Of some machines there is no build of dlib; the app then does without feature networks.
$(VENV)/.installed-faces: pyproject.toml constraints.txt version | $(BIN)/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[faces]' || \
	{ echo "The feature networks cannot be installed here; going on without them."; \
	  $(BIN)/python -m pip install --constraint constraints.txt --editable .; }
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-%: pyproject.toml constraints.txt version | $(BIN)/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$*]'
	@touch $@ $(VENV)/.installed
