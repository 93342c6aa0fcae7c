# `make demo` and `make test` need only Python 3.11 to 3.13; everything else goes into .venv.
# Another Python: `make test PYTHON=/path/to/python3.12`.
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11 python; do \
	"$$candidate" -c '$(FITS)' 2>/dev/null && { echo "$$candidate"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint notebooks docs docs-serve links clean

install: $(VENV)/.installed

# A half-made .venv (no pip in it) is made again; a whole one is reused.
$(VENV)/.installed: setup.cfg pyproject.toml
	@"$(PYTHON)" -c '$(FITS)' 2>/dev/null || { echo "edgeprune needs Python 3.11, 3.12 or 3.13 with its venv module" \
	"(Debian and Ubuntu: apt install python3-venv); name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@

demo: install
	$(BIN)/edgeprune demo --overwrite

# Two processes: each has a TensorFlow of its own, which takes 2 GB. The files go to them in the order of conftest.py.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Run the notebooks whole and keep what they print and plot.
notebooks: install
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

# The site, in build/site. Nothing is executed: the reference is read from the source, notebooks are shown as they are kept.
docs: $(VENV)/.docs
	$(BIN)/mkdocs build

docs-serve: $(VENV)/.docs
	$(BIN)/mkdocs serve

# Links to other sites, which no test asks for.
links: docs
	$(BIN)/linkchecker --check-extern --no-warnings build/site/index.html

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
