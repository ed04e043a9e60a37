# `make demo` and `make test` need nothing but Python 3.10 to 3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes; which tests stay together is in tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

LOWER_BOUNDS := tests/losses/test_contract.py tests/losses/test_ranked_list.py tests/models/test_embedding.py \
  tests/data/test_pipeline.py tests/data/test_decode.py tests/evaluation/test_metrics.py tests/training/test_train.py \
  tests/test_package.py

.PHONY: demo demo-photos test test-all lint docs figures dist lower-bounds venv bench addons pins clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      train on glyphs, compare, export, draw ranked lists (runs/demo)"
	@echo "make demo-photos PHOTOS=FOLDER  the same on your photographs, from ImageNet's weights"
	@echo "make test      the test suite"
	@echo "make test-all  and the tests that take longer or need PyTorch, KerasCV, tensorflow-datasets"
	@echo "make lint      ruff, mypy, and which package imports which (.importlinter)"
	@echo "make docs      the documentation as a site (build/docs/index.html); Python 3.11 or later"
	@echo "make figures   redraw the pages' figures of the loss and of training; takes a few minutes"
	@echo "make dist      sdist and wheel (dist/), built and checked"
	@echo "make bench     the benchmarks (make addons first, to measure beside TensorFlow Addons)"
	@echo "make lower-bounds  some of the tests, with the oldest versions that setup.cfg allows; needs uv"
	@echo "make venv      only build $(VENV) from the pinned versions"

venv: $(READY)

# The marker is written last: an installation that broke off is begun again.
$(READY): requirements-dev.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit("rll_tf needs Python 3.10 to 3.13; %s is %d.%d: set PYTHON=" % (sys.executable, *v))'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: venv
	$(BIN)/rll demo

# Checked before .venv is built, which takes minutes.
demo-photos:
	@test -n "$(PHOTOS)" || { echo 'make demo-photos PHOTOS=FOLDER: a directory of photographs for each class'; exit 1; }
	@$(MAKE) --no-print-directory venv
	$(BIN)/rll demo --photos "$(PHOTOS)"

# Optimising what XLA compiles is a good part of the losses' time; test-all runs it as users do.
test: venv
	XLA_FLAGS=--xla_backend_optimization_level=0 $(PYTEST)

test-all: $(VENV)/.extras
	$(PYTEST) -m "slow or not slow" --hypothesis-profile=thorough

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

# Without TensorFlow's start-up notices, which are no warnings of Sphinx's.
docs: $(VENV)/.docs
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --builder html docs build/docs
	@echo "build/docs/index.html"

# What the pages show of training; a few minutes.
figures: venv
	$(BIN)/python docs/figures/data_flow.py
	$(BIN)/python docs/figures/formula.py
	$(BIN)/python docs/figures/training.py

$(VENV)/.docs: $(READY) requirements-docs.txt
	@$(BIN)/python -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make docs and make dist need Python 3.11 or later: make clean, and set PYTHON=")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements-dev.txt -r requirements-docs.txt
	@touch $@

# twine reads the metadata as an index does; tests/test_package.py checks what the two files hold.
dist: $(VENV)/.docs
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

# The oldest versions that setup.cfg allows, under the oldest Python, and the tests of what depends on them most.
lower-bounds:
	uv venv --quiet --clear --python 3.10 .venv-lower
	uv pip install --quiet --python .venv-lower --resolution lowest-direct --editable '.[dev]'
	.venv-lower/bin/python -m pytest -n 2 --dist loadfile -W ignore::DeprecationWarning $(LOWER_BOUNDS)

bench: $(VENV)/.extras
	$(BIN)/python -m benchmarks.loss
	$(BIN)/python -m benchmarks.losses
	$(BIN)/python -m benchmarks.network
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.index
	$(BIN)/python -m benchmarks.artefact
	$(BIN)/python -m benchmarks.serving

$(VENV)/.extras: $(READY) requirements-extras.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements-dev.txt -r requirements-extras.txt
	@touch $@

# TensorFlow Addons ended with Keras 2 and Python 3.11; benchmarks.losses measures beside it.
addons:
	@if $(PYTHON) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))'; then \
	  $(PYTHON) -m venv .venv-addons && .venv-addons/bin/python -m pip install --quiet --disable-pip-version-check \
	    tensorflow-cpu==2.15.1 tensorflow-addons==0.23.0 'numpy<2'; \
	else echo "skipped: TensorFlow Addons needs Python 3.9 to 3.11, $(PYTHON) is another"; fi

# Renews every pin within the ranges of setup.cfg.
pins:
	uv pip compile setup.cfg --extra dev --universal --python-version 3.10 --no-annotate --no-header --upgrade --quiet -o .pins
	{ head -1 requirements-dev.txt; cat .pins; } > .pins.new && mv .pins.new requirements-dev.txt && rm .pins

clean:
	rm -rf $(VENV) .venv-lower build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
