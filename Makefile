# The same lines as in README.md, CONTRIBUTING.md and .ci/run.
VENV := .venv
BIN := $(VENV)/bin
# Other implementations that tests compare with; apart, because they bring a package "tests" and much we do not need.
ORACLES := lightly==1.6.0 torchstain==1.4.1
# The extra "stainfuser" (diffusers, and what it imports), in the same place, so that its tests run.
ORACLES += diffusers==0.42.1 certifi==2026.10.19.post1 charset_normalizer==3.5.2 importlib_metadata==10.2.0 \
  regex==2026.11.19 requests==2.34.2 urllib3==2.8.0 zipp==4.1.2
# The extra "onnx", likewise, and a runtime to read what was written.
ORACLES += onnx==1.23.2 onnxscript==0.7.2 onnx-ir==1.1.0 ml-dtypes==0.6.0 onnxruntime==1.32.0
# The extra "openvino", likewise.
ORACLES += openvino==2026.4.1
# What distances between samples are compared with.
ORACLES += POT==0.9.7.post1
# What steers the browser that opens a report; the browser is Debian's chromium.
ORACLES += playwright==1.65.2 greenlet==3.5.6 pyee==16.0.1
# Tests that count on the machine's cores, memory or clock: they run by themselves, after all others.
ALONE := $(addprefix tests/,faults/test_chaos.py faults/test_workers.py faults/test_resume.py \
  faults/test_two_processes.py faults/test_locks.py faults/test_corpus.py faults/test_text_mutants.py \
  test_cluster.py test_distributed.py test_jobqueue.py test_memory.py test_microbatch.py test_status.py)
# The extra "report", in a place of its own: where it is found every picture of an evaluation would compile for a minute.
UMAP := umap-learn==0.5.12 pynndescent==0.7.0 numba==0.68.1 llvmlite==0.50.0
# What builds the manual's site, and a workflow manager that runs the manual's example; each in a place of its own, as
# they bring much we do not need (Snakemake an older "packaging").
DOCS := sphinx==9.1.1 myst-parser==5.2.0 furo==2025.12.19 accessible-pygments==0.0.5 alabaster==1.0.0 babel==2.19.0 \
  docutils==0.22.4 imagesize==2.0.1 mdit-py-plugins==0.7.0 requests==2.34.2 roman-numerals==4.1.0 \
  snowballstemmer==3.1.1 sphinx-basic-ng==1.0.0b2 sphinxcontrib-applehelp==2.0.0 sphinxcontrib-devhelp==2.0.0 \
  sphinxcontrib-htmlhelp==2.1.0 sphinxcontrib-jsmath==2.0.0 sphinxcontrib-qthelp==2.0.0 \
  sphinxcontrib-serializinghtml==2.0.0 beautifulsoup4==4.15.0 certifi==2026.10.19.post1 charset_normalizer==3.5.2 \
  soupsieve==4.1.3 urllib3==2.8.0
SNAKEMAKE := snakemake==9.27.1 conda-inject==1.3.2 connection_pool==0.0.3 docutils==0.22.4 dpath==2.2.0 \
  packaging==25.0 PuLP==3.3.2 requests==2.34.2 smart_open==7.7.1 snakemake-interface-common==1.23.0 \
  ConfigArgParse==1.9.0 snakemake-interface-executor-plugins==9.4.0 snakemake-interface-logger-plugins==2.1.0 \
  snakemake-interface-report-plugins==1.3.0 snakemake-interface-scheduler-plugins==2.0.2 \
  snakemake-interface-storage-plugins==4.4.1 humanfriendly==10.0 sqlmodel==0.0.37 tenacity==9.2.1 throttler==1.2.3 \
  wrapt==2.5.2 yte==1.9.4 GitPython==3.2.1 immutables==0.21 jsonschema==4.26.0 referencing==0.37.0 \
  nbformat==5.11.1 platformdirs==4.14.8 tabulate==0.10.0 argparse-dataclass==2.0.0 attrs==26.1.0 \
  certifi==2026.10.19.post1 charset_normalizer==3.5.2 fastjsonschema==2.22.3 gitdb==4.0.12 \
  jsonschema-specifications==2025.9.1 jupyter_core==5.9.1 rpds-py==2026.9.1 SQLAlchemy==2.0.58 traitlets==5.16.1 \
  urllib3==2.8.0 greenlet==3.5.6 smmap==5.0.3
AUDIT := $(VENV)/audit
PYTHON ?= $(shell for p in python3.13 python3.12 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)

# How long each text format is fuzzed for; no part of "check".
FUZZ_SECONDS ?= 60
FUZZED := run manifest outline settings jobs

.PHONY: demo test check audit docs fuzz install clean

demo: install
	$(BIN)/wsi-lmc demo

test: check

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

# Known holes in the versions that the tests passed with, asked of PyPI. What cannot be asked has not passed: without
# --strict, pip-audit would only warn. It has an environment of its own.
audit:
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && \
	  $(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@printf '%s\n' $(ORACLES) $(UMAP) $(DOCS) $(filter-out packaging==%,$(SNAKEMAKE)) | cat constraints.txt - | sort -u > $(AUDIT)/requirements.txt
	@$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(AUDIT)/requirements.txt || { \
	  echo "make audit has not passed: see above which versions have known holes (take newer ones in constraints.txt),"; \
	  echo "or why advisories could not be asked for (try again where https://pypi.org can be reached)."; exit 1; }

# The manual as a site: docs/_build/index.html.
docs: install
	PYTHONPATH=$(CURDIR):$(VENV)/docs $(BIN)/python -m sphinx -q -E -W --keep-going -b html docs docs/_build

fuzz: install
	test -d $(VENV)/fuzz || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target $(VENV)/fuzz atheris==3.1.0
	for format in $(FUZZED); do \
	  PYTHONPATH=$(CURDIR):$(VENV)/fuzz $(BIN)/python -m tests.faults.fuzz $$format $(FUZZ_SECONDS) || exit 1; done

install: $(VENV)/.installed

# Exact versions that the tests passed with; plain "pip install ." takes newer ones.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { \
	  echo "No Python 3.12 or newer found (zarr 3.4 needs it); 'python3' is: $$(python3 --version 2>&1)."; \
	  echo "Install one and try again: 'pyenv install 3.12', or 'uv python install 3.12',"; \
	  echo "or name it: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/oracles $(ORACLES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/umap $(UMAP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/docs $(DOCS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/snakemake $(SNAKEMAKE)
	@touch $@

clean:
	rm -rf $(VENV) docs/_build wsi-lmc-demo .pytest_cache .ruff_cache
