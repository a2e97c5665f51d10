# `make help` lists what there is. Each environment is made once, from a lock file, and again when that changes.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first of these that is a Python 3.11 or 3.12; `make PYTHON=python3.12 ...` chooses.
is_supported = $(shell $(1) -c 'import sys; print(sys.version_info[:2] in ((3, 11), (3, 12)))' 2>/dev/null)
PYTHON ?= $(or $(firstword $(foreach python,python3 python3.12 python3.11,\
  $(if $(filter True,$(call is_supported,$(python))),$(python)))),python3)
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

# A sourced ROS, a middleware that only it has, or another Python's modules must not leak into the environments here.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONHOME PYTHONPATH
unexport RMW_IMPLEMENTATION ROS_DISTRO ROS_PYTHON_VERSION ROS_VERSION _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := pip==26.3

RUN := .venv/bin/
REAL ?= ../shared/data
VENV_MADE := .venv/stamps/python-$(PYTHON_VERSION)
SIM_MADE := .venv-sim/stamps/python-$(PYTHON_VERSION)
PACKAGE_SOURCES := $(wildcard msg/* srv/* action/* launch/* config/* scripts/* examples/demo_bag/*) \
  CMakeLists.txt package.xml pyproject.toml setup.py

# $(call install,environment,lock file): pip without its chatter, but never silent for long.
define install
	@echo "Installing $$(grep -c == $(2)) packages from $(2) into $(1)"
	@$(1)/bin/python -m pip install --no-input -r $(2) | awk \
	  '/^Collecting/ && ++n % 20 == 0 { print "  fetched " n ", now " $$2; fflush() } \
	   /^Installing collected/ { print "  copying them into place"; fflush() }'
endef

.PHONY: help
help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: demo
demo: .venv/stamps/package  ## Play the recorded robot through the node; pictures and numbers land in out/
	@$(RUN)astra demo --out out

.PHONY: test
test: lint  ## Linters, type checker, import rules, then the whole test suite
	$(RUN)python -m pytest

.PHONY: lint
lint: .venv/stamps/package .venv/stamps/test  ## Formatter (check only), linter, type checker, import rules, spelling
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports --no-logo
	$(RUN)codespell

.PHONY: format
format: .venv/stamps/test  ## Rewrite the sources in the project's format
	$(RUN)ruff format .
	$(RUN)ruff check --fix .

.PHONY: record
record: .venv-sim/stamps/sim  ## Record episodes of the simulated robot, to learn from and held out, into runs/
	@PYTHONPATH=. .venv-sim/bin/python -m astra_ros.cli.main simulate --out runs/train --episodes 200 --first-seed 0
	@PYTHONPATH=. .venv-sim/bin/python -m astra_ros.cli.main simulate --out runs/heldout --episodes 24 --first-seed 100000

# $(call simulate,world,folder,episodes to learn from,held out)
define simulate
	@PYTHONPATH=. .venv-sim/bin/python -m astra_ros.cli.main simulate --world $(1) --out $(2) --episodes $(3) --first-seed 0
	@PYTHONPATH=. .venv-sim/bin/python -m astra_ros.cli.main simulate --world $(1) --out $(2) --episodes $(4) --first-seed 100000
endef

.PHONY: worlds
worlds: .venv-sim/stamps/sim  ## Simulate driving, rooms, rooms by keys and mouse, MetaWorld and PushT, into runs/data/
	$(call simulate,driving,runs/data/driving_sim,120,12)
	$(call simulate,rooms,runs/data/rooms_sim,120,12)
	$(call simulate,command,runs/data/command_sim,120,12)
	$(call simulate,metaworld,runs/data/metaworld,60,8)
	$(call simulate,pusht,runs/data/pusht,300,24)

.PHONY: data
data: .venv/stamps/package .venv/stamps/test  ## What `make record` left, and real recordings in REAL=folder, to runs/data/
	@$(RUN)astra data import bags runs/train runs/heldout --out runs/data/panda_sim
	@if [ -d "$(REAL)" ]; then \
	  $(RUN)astra data import g1 $(REAL)/g1_pick_bottle --out runs/data/g1; \
	  $(RUN)astra data import droid $(REAL)/droid_subset --out runs/data/droid; \
	  $(RUN)astra data import bridge $(REAL)/bridge_octo_debug --out runs/data/bridge; \
	  $(RUN)astra data import donkey $(REAL)/donkey_tub_official --cut 20 24 42 46 --out runs/data/rc_track; \
	  $(RUN)astra data import donkey $(REAL)/donkey_yuki --out runs/data/rc_carpet; \
	  $(RUN)astra data import tum $(REAL)/tum_fr1_rpy --cut 9 12 18 21 --out runs/data/handheld; \
	else echo "no folder REAL=$(REAL): only the simulated arm was imported"; fi

.PHONY: train
train: .venv/stamps/package .venv/stamps/test  ## Train tiny on its ten datasets in runs/data/ (ARGS="--minutes 60 'data.sets=[...]'" and other options)
	@$(RUN)astra train config/train/tiny.yaml --out runs/tiny $(ARGS)

.PHONY: sim
sim: .venv-sim/stamps/sim  ## Only make the simulator's environment

.PHONY: lock
lock: .venv/stamps/test  ## Resolve requirements/*.txt again (ARGS=--upgrade for newer versions)
	@build="$$($(RUN)python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")')"; \
	lock() { $(RUN)uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
	  --annotation-style line --custom-compile-command 'make lock' $(ARGS) "$$@"; }; \
	lock pyproject.toml --extra openvino - -o requirements/demo.txt <<< "$$build"; \
	lock pyproject.toml --extra train --extra openvino --extra trt - requirements/test.in -c requirements/demo.txt -o requirements/test.txt <<< "$$build"; \
	lock requirements/sim.in -o requirements/sim.txt

.PHONY: clean
clean:  ## Remove environments, builds and results
	rm -rf .venv .venv-sim build install log out dist *.egg-info astra_ros/msg astra_ros/srv astra_ros/action astra_ros/*.so

.PHONY: system system-sim
system:
	@command -v $(PYTHON) > /dev/null || { echo "No $(PYTHON) here; run: sudo apt-get install -y python3" >&2; exit 1; }
	@$(PYTHON) requirements/check_system.py

system-sim: system
	@$(PYTHON) requirements/check_system.py --simulator

$(VENV_MADE): | system
	@echo "Making .venv with Python $(PYTHON_VERSION)"
	@$(PYTHON) -m venv --clear .venv && .venv/bin/python -m pip install -qq $(PIP)
	@mkdir -p $(@D) && touch $@

.venv/stamps/demo: requirements/demo.txt $(VENV_MADE)
	$(call install,.venv,requirements/demo.txt)
	@touch $@

.venv/stamps/test: requirements/test.txt .venv/stamps/demo
	$(call install,.venv,requirements/test.txt)
	@touch $@

.venv/stamps/package: $(PACKAGE_SOURCES) .venv/stamps/demo | system
	@echo "Building the interfaces and installing astra_ros (about half a minute)"
	@$(RUN)python -m pip install -qq --no-input --no-build-isolation --no-deps --editable .
	@touch $@

$(SIM_MADE): | system-sim
	@echo "Making .venv-sim with Python $(PYTHON_VERSION)"
	@$(PYTHON) -m venv --clear .venv-sim && .venv-sim/bin/python -m pip install -qq $(PIP)
	@mkdir -p $(@D) && touch $@

.venv-sim/stamps/sim: requirements/sim.txt $(SIM_MADE)
	$(call install,.venv-sim,requirements/sim.txt)
	@touch $@
