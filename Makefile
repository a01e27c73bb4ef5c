# The same lines as in README.md, CONTRIBUTING.md and .ci/run.
VENV := .venv
BIN := $(VENV)/bin
# What tests need beside the environment, each in a place of its own, installed without dependencies: see the files.
PLACES := oracles umap docs snakemake consumers
# Tests that count on the machine's cores, memory or clock: they run by themselves, after all others.
ALONE := $(addprefix tests/,faults/test_chaos.py faults/test_workers.py faults/test_resume.py \
  faults/test_two_processes.py faults/test_locks.py faults/test_corpus.py faults/test_text_mutants.py \
  test_cluster.py test_distributed.py test_jobqueue.py test_memory.py test_microbatch.py test_status.py)
# In the order of their names: else files of few but long tests come last, one core waiting for the other.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
AUDIT := $(VENV)/audit
# Where "make wheel" builds, installs and tries what would be released.
CLEAN := $(abspath $(VENV))/clean
PYTHON ?= $(shell for p in python3.13 python3.12 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)

# How long each text format is fuzzed for; no part of "check".
FUZZ_SECONDS ?= 60
FUZZED := run manifest outline settings jobs

.PHONY: demo test check audit docs fuzz wheel install places clean

demo: install
	$(BIN)/wsi-lmc demo

test: check

check: places
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

# Known holes in the versions that the tests passed with, asked of PyPI. What cannot be asked has not passed: without
# --strict, pip-audit would only warn. It has an environment of its own.
audit:
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && \
	  $(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@for pins in constraints.txt $(PLACES:%=tests/places/%.txt); do \
	  $(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $$pins || { \
	  echo "make audit has not passed: see above which versions of $$pins have known holes (take newer ones), or why"; \
	  echo "advisories could not be asked for (try again where https://pypi.org can be reached)."; exit 1; }; done

# The manual as a site: docs/_build/index.html.
docs: places
	PYTHONPATH=$(CURDIR):$(VENV)/docs $(BIN)/python -m sphinx -q -E -W --keep-going -b html docs docs/_build

fuzz: install
	test -d $(VENV)/fuzz || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target $(VENV)/fuzz atheris==3.1.0
	for format in $(FUZZED); do \
	  PYTHONPATH=$(CURDIR):$(VENV)/fuzz $(BIN)/python -m tests.faults.fuzz $$format $(FUZZ_SECONDS) || exit 1; done

# What users get, for real: archives in dist/, the wheel in an environment of its own with everything else from the
# index, and the whole demo there. Before a release, with its tag on the commit: it must be the package's version.
wheel:
	rm -rf dist $(CLEAN) && mkdir -p $(CLEAN)
	$(PYTHON) -m venv $(CLEAN)/build
	$(CLEAN)/build/bin/python -m pip install --quiet --disable-pip-version-check build==1.6.1
	$(CLEAN)/build/bin/python -m build --outdir dist .
	@tag=$$(git describe --exact-match --tags --match 'v*' HEAD 2>/dev/null); \
	  test -z "$$tag" || test -f "dist/wsi_lmc-$${tag#v}-py3-none-any.whl" || { \
	  echo "the tag $$tag is not the version of dist/*.whl: correct wsi_lmc/__init__.py and CITATION.cff"; exit 1; }
	$(PYTHON) -m venv $(CLEAN)/new
	$(CLEAN)/new/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd $(CLEAN) && env -u PYTHONPATH new/bin/wsi-lmc --version && env -u PYTHONPATH new/bin/wsi-lmc demo -o demo

install: $(VENV)/.installed

places: $(VENV)/.places

# Exact versions that the tests passed with; plain "pip install ." takes newer ones.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
	  echo "No Python 3.12 or newer found (zarr 3.4 needs it); 'python3' is: $$(python3 --version 2>&1)."; \
	  echo "Install one and try again: 'pyenv install 3.12', or 'uv python install 3.12',"; \
	  echo "or name it: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# What only tests need, side by side: it takes as long again.
$(VENV)/.places: $(VENV)/.installed $(PLACES:%=tests/places/%.txt)
	@set -e; for place in $(PLACES); do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(VENV)/$$place \
	    -r tests/places/$$place.txt & started="$$started $$!"; done; \
	  for one in $$started; do wait $$one || { echo "see above what could not be installed"; exit 1; }; done
	@touch $@

clean:
	rm -rf $(VENV) docs/_build wsi-lmc-demo .pytest_cache .ruff_cache
