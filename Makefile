# Two commands set everything up on a machine with Python 3.11 to 3.13: `make demo` what a user needs, `make test` the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
USER_READY := $(VENV)/.user
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PEERS := .venv-peers
RLIABLE := .venv-rliable
JAX := .venv-jax
S3 := .venv-s3

.PHONY: install demo test test-extended test-all check lint format wheel peers peers-jax rliable s3 cluster chaos d4rl trackers docs system report bench guard \
        coverage dist clean

## Install what a user needs, and train DT, BC and CQL on Key-to-Door, Hopper and Pong through Ray Tune, on data made
## here: nothing but packages is downloaded. Prints a table and the path of the report.
DEMO := DTBENCH_OFFLINE=1 DTBENCH_DATA=demo/data $(BIN)/dtbench
demo: $(USER_READY)
	$(DEMO) run --suite demo --source generated --results demo/results
	$(DEMO) report --suite demo --results demo/results --out demo/report

## The tests; they need no GPU and no network. `make test-extended` runs those that take minutes or start a Ray,
## `make test-all` both. Those that need d3rlpy, rliable, an S3 server, Chromium or LaTeX run where `make peers`,
## `make rliable`, `make s3` or `make system` has put it. JOBS processes share them: tests/conftest.py says which.
JOBS ?= 2
TESTS_test-extended := -m 'extended and not cluster'
TESTS_test-all := -m 'not cluster'
test test-extended test-all: $(INSTALLED)
	$(if $(wildcard $(PEERS)/.installed),DTBENCH_PEERS_PYTHON=$(CURDIR)/$(PEERS)/bin/python) \
	$(if $(wildcard $(RLIABLE)/.installed),DTBENCH_RLIABLE_PYTHON=$(CURDIR)/$(RLIABLE)/bin/python) \
	$(if $(wildcard $(S3)/.installed),DTBENCH_MOTO_SERVER=$(CURDIR)/$(S3)/bin/moto_server) \
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(TESTS_$@)

## The tests with the share of lines that they run; fails below the floor in pyproject.toml.
coverage: $(INSTALLED)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder \
	  --cov=dtbench --cov=baselines --cov-report=term:skip-covered

install: $(INSTALLED)

## Format, lint, types, tests.
check: lint test

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# pip says which torch it would take. Where that brings CUDA and there is no GPU, uv fetches the CPU build.
$(USER_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python tools/install_torch.py constraints.txt
	$(PIP) -c constraints.txt -e .
	touch $@

# For development: tests, linters, documentation, RLlib and the peers that share our environment.
$(INSTALLED): $(USER_READY)
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $@

## An environment with d3rlpy, whose requirements exclude ours; `make test` then compares losses with it.
peers: $(PEERS)/.installed

$(PEERS)/.installed: constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python tools/install_torch.py constraints.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check d3rlpy==2.8.1
	touch $@

## An environment for JAX-CORL's scripts, whose updates `benchmarks/td_update.py` times against ours.
peers-jax: $(JAX)/.installed

$(JAX)/.installed:
	$(PYTHON) -m venv $(JAX)
	$(JAX)/bin/python -m pip install --quiet --disable-pip-version-check 'jax[cpu]==0.10.2' flax==0.12.8 optax==0.2.8 \
	    distrax==0.1.9 omegaconf pydantic tqdm
	touch $@

## An environment with rliable, which needs an older pandas; `make test` then compares statistics with it.
rliable: $(RLIABLE)/.installed

$(RLIABLE)/.installed:
	$(PYTHON) -m venv $(RLIABLE)
	$(RLIABLE)/bin/python -m pip install --quiet --disable-pip-version-check rliable==1.2.0 pandas==2.3.3 arch==7.2.0
	touch $@

## An environment with moto's S3 server, for the tests of results at an address.
s3: $(S3)/.installed

$(S3)/.installed:
	$(PYTHON) -m venv $(S3)
	$(S3)/bin/python -m pip install --quiet --disable-pip-version-check 'moto[s3]==5.2.5' flask==3.1.3 flask-cors==6.0.5
	touch $@

## The tests that start a Ray of several nodes, or RLlib: some minutes more.
cluster: $(INSTALLED)
	$(BIN)/python -m pytest -m cluster

## Drivers, workers and nodes killed at random moments, CHAOS of them; about a quarter of a minute each.
CHAOS ?= 50
chaos: $(INSTALLED)
	$(BIN)/python tests/chaos/chaos.py --kills $(CHAOS)

## Debian's Chromium and LaTeX, for the tests of the page and of the LaTeX tables.
system:
	tools/debian_packages.sh

## The documentation site, into docs/_build.
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W -q docs docs/_build

## Tables, figures and the page from results/scores, then the check that CI makes.
report: $(INSTALLED)
	$(BIN)/dtbench report
	$(BIN)/dtbench report --check

## Speed against transformers and d3rlpy, into results/performance, and one table; some minutes on two cores that do
## nothing else. After `make peers-jax`, DTBENCH_JAX_CORL=CHECKOUT adds JAX-CORL. `make guard` is the part that CI holds against bounds.
bench: $(INSTALLED) $(PEERS)/.installed
	$(if $(wildcard $(JAX)/.installed),DTBENCH_JAX_PYTHON=$(CURDIR)/$(JAX)/bin/python) \
	$(BIN)/python -m benchmarks.run --peers $(CURDIR)/$(PEERS)/bin/python

guard: $(INSTALLED) $(PEERS)/.installed
	DTBENCH_PEERS_PYTHON=$(CURDIR)/$(PEERS)/bin/python $(BIN)/python -m benchmarks.guard > /dev/null

## The packages of the extras wandb and mlflow; the tests then read back what `dtbench export` writes for them.
trackers: $(INSTALLED)
	$(PIP) -c constraints.txt -e '.[mlflow,wandb]'

## The package d4rl without what it needs: nothing imports it, the tests read its scores and addresses.
d4rl: $(INSTALLED)
	$(PIP) --no-deps d4rl==1.1

## Build the wheel, install it into an empty environment, use it from an empty folder.
wheel: $(INSTALLED)
	tools/check_wheel.sh $(BIN)/python

## The wheel and the source archive, into dist.
dist: $(INSTALLED)
	$(BIN)/python -m build --no-isolation --outdir dist

clean:
	rm -rf $(VENV) $(PEERS) $(JAX) $(RLIABLE) $(S3) demo build dist docs/_build
