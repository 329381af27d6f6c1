# make demo           one ablation from YAML to report on this machine, in minutes
# make test           the fast test suite; installs what is missing
#                     (RUN=".venv/bin/python -O" runs them without the package's assertions, none of which has an effect)
# make test-full      the slow tests as well
# make test-gpu       the tests that need a GPU
# make test-trackers  the tests of Weights & Biases and MLflow, which it installs
# make soak           500 runs on a throwaway Slurm cluster under random failures, ten minutes
# make reliability    every command is killed at its writes, and every fault of a disk tried; hours, resumable (ARGS=--help)
# make check          formatting, lint, types and import directions
# make docs           the documentation as a site, in build/docs
# make bench          training steps on this CPU against named peers (benchmarks/README.md); minutes on an idle machine
# make bench-gpu      everything that needs a GPU, in nine minutes, with only torch and these files; IMAGES=folder, ARGS=--toy

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test test-full test-gpu test-trackers soak reliability check docs bench bench-gpu packages clean

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
RUN := .venv/bin/python
DEBIAN_PACKAGES := slurmctld slurmd slurm-client munge slurmdbd mariadb-server chromium

demo: .venv/complete
	@$(RUN) -m study.launch sweeps/quickstart.yaml --cluster local
	@$(RUN) -m study.report sweeps/quickstart.yaml

test: .venv/complete-dev packages
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadgroup -m "not slow and not gpu and not trackers"

test-full: .venv/complete-dev packages
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadgroup -m "not gpu and not trackers"

test-gpu: .venv/complete-dev
	@$(RUN) -m pytest -m gpu

test-trackers: .venv/complete-dev
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[wandb,mlflow]'
	@$(RUN) -m pytest -m trackers

soak: .venv/complete-dev packages
	@OMP_NUM_THREADS=1 $(RUN) tests/launcher/soak.py --runs 500 --minutes 10

reliability: .venv/complete-dev
	@$(RUN) tests/reliability build/reliability $(ARGS)

check: .venv/complete-dev
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports --no-cache --no-logo

docs: .venv/complete-dev
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict
	@echo "build/docs/index.html"

bench: .venv/complete-dev
	@$(RUN) -m benchmarks.cpu $(ARGS)

bench-gpu:
	@$(or $(wildcard $(RUN)),python3) -m benchmarks.gpu $(if $(IMAGES),--images $(IMAGES)) $(ARGS)

packages:
	@bash tests/install_packages.sh $(DEBIAN_PACKAGES)

# The stamp is written last, so an interrupted installation is repeated on top of what is there.
.venv/complete: pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed (PYTHON=/path/to/python3.11 make ...)" >&2; exit 1; fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/complete-dev: .venv/complete
	@echo "installing what the tests need"
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info
