# `make help` lists what there is. Every target sets up what it needs by itself.

VENV := .venv
PYTHON := $(VENV)/bin/python
SOURCES := $(shell find cni_py plugins conf docs/man -type f -not -path '*/__pycache__/*' 2>/dev/null)
# Tests wait for the kernel much of the time.
JOBS ?= $(shell echo $$((2 * $$(nproc))))

# How long `make fuzz` has for each of its targets, in seconds.
FUZZ_SECONDS ?= 20

# How many sequences `make model` tries, and how many steps each has.
MODEL_EXAMPLES ?= 200
MODEL_STEPS ?= 40

.PHONY: help demo demo-cluster demo-services test test-vm test-packages lint bin dist deb bench scale faults faults-cluster faults-services flood fuzz model schema pages docs clean

help:
	@echo 'make demo      two containers on a bridge, step by step (as root)'
	@echo 'make demo-cluster  three hosts on a simulated underlay, an etcd, six containers (as root)'
	@echo 'make demo-services  three instances behind one name on two hosts, one killed, one cut off (as root)'
	@echo 'make test      lint, the site and every test; without root what can run in a user namespace'
	@echo 'make test-vm   the tests that need kernel features of Debian'\''s stock kernel, in a VM'
	@echo 'make test-packages   what users install: wheels, sdist, pipx, the Debian package on a Debian of its own'
	@echo 'make bin       fill bin/ with the executables: usable as CNI_PATH at once'
	@echo 'make dist      the sdist, and wheels for x86-64 and arm64: dist/'
	@echo 'make deb       the same, and the Debian packages made of the wheels'
	@echo 'make bench     compare with the reference plugins: REF_BIN=<folder> chooses which'
	@echo 'make scale     thousands of simulated nodes on one etcd (as root): SCALE=<options of bench/scale.py>'
	@echo 'make flood     hundreds of containers, calls at once, kills: FLOOD=<options of tests/faults/flood.py>'
	@echo 'make faults    SIGKILL or errors at every moment of a call: FAULTS=<options of tests/faults/kills.py>'
	@echo 'make faults-cluster  what goes wrong in a cluster of three hosts: FAULTS=<options of tests/faults/cluster.py>'
	@echo 'make faults-services  how long a dead service is still found: FAULTS=<options of tests/faults/services.py>'
	@echo 'make fuzz      hostile input to everything that reads some: FUZZ_SECONDS=20 for each target'
	@echo 'make model     long sequences of calls and mishaps against a model: MODEL_EXAMPLES=200, MODEL_STEPS=40'
	@echo 'make lint      ruff, mypy --strict, import-linter, shellcheck'
	@echo 'make schema    write the JSON Schemas of the plugins'\'' configurations to conf/schema'
	@echo 'make docs      build the documentation site: build/site/index.html'
	@echo 'make pages     write what is generated in docs/: keys, examples, lists'
	@echo 'make clean     remove what the other targets made'

demo: bin
	@tests/tools/setup demo
	@$(VENV)/bin/cni-py demo

demo-cluster: bin
	@tests/tools/setup demo-cluster
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m tools.demo_cluster

demo-services: bin
	@tests/tools/setup demo-services
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m tools.demo_services

test: bin lint docs
	@tests/tools/setup test
	@tests/tools/run-tests -n $(JOBS)

test-vm: bin
	@$(PYTHON) -m compileall -q cni_py tests
	@tests/vm/run-in-vm -- env PYTHONSAFEPATH=1 $(VENV)/bin/python -m pytest tests/kernel tests/faults tests/commands tests/cluster -m vm -n 0 \
	  --served in-process -o timeout=900

dist: $(VENV)/dependencies
	@tests/tools/setup dist
	@release/dist dist

deb: dist
	@tests/tools/setup deb
	@release/deb dist

test-packages: bin $(VENV)/packages
	@tests/tools/setup test
	@tests/tools/setup packages
	@PYTHONSAFEPATH=1 $(PYTHON) -m pytest tests/packages -n 2 -o timeout=1800

bench: bin
	@tests/tools/setup bench
	@PYTHONSAFEPATH= PYTHONPATH=tests $(PYTHON) bench/compare.py $(if $(REF_BIN),--reference $(REF_BIN)) $(BENCH)

scale: bin
	@tests/tools/setup test
	@PYTHONSAFEPATH= PYTHONPATH=tests $(PYTHON) bench/scale.py $(SCALE)

faults: bin
	@tests/tools/setup test
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m faults.kills $(FAULTS)

faults-cluster: bin
	@tests/tools/setup test
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m faults.cluster $(FAULTS)

faults-services: bin
	@tests/tools/setup test
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m faults.services $(FAULTS)

flood: bin
	@tests/tools/setup test
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m faults.flood $(FLOOD)

fuzz: bin $(VENV)/fuzz
	@tests/tools/setup fuzz
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m fuzz.run --seconds $(FUZZ_SECONDS) $(FUZZ)

model: bin
	@tests/tools/setup test
	@PYTHONSAFEPATH=1 MODEL_EXAMPLES=$(MODEL_EXAMPLES) MODEL_STEPS=$(MODEL_STEPS) \
	  $(PYTHON) -m pytest -s tests/model -o timeout=0

lint: $(VENV)/installed
	@tests/tools/setup lint
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/lint-imports >.import-linter.log || { cat .import-linter.log; exit 1; }
	@shellcheck -x tests/tools/setup tests/tools/run-tests tests/tools/build-cnitool tests/tools/fetch-containerd \
	  tests/vm/run-in-vm tests/vm/in-guest release/dist release/deb .ci/run

bin: $(VENV)/installed
	@$(VENV)/bin/cni-py install bin >/dev/null
	@ln -sf ../$(VENV)/bin/cni-py bin/cni-py

schema: $(VENV)/installed
	@$(VENV)/bin/cni-py schema conf/schema

pages: $(VENV)/installed
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m tools.pages
	@PYTHONSAFEPATH=1 PYTHONPATH=tests $(PYTHON) -m tools.man

# Strict: a link or an anchor that leads nowhere fails it.
docs: $(VENV)/docs
	@tests/tools/setup docs
	@mkdir -p build
	@$(VENV)/bin/zensical build --clean --strict >build/docs.log 2>&1 || \
	  { sed -n 's/\x1b\[[0-9;]*m//g; /^Warning/h; /\[ .* \]$$/{H; x; s/\n.*\[/:/; s/\]$$//; p}; $$p' build/docs.log; exit 1; }
	@if [ -d build/iframe-worker ]; then install -D -m 644 build/iframe-worker/package/shim/index.js \
	  build/site/assets/javascripts/iframe-worker.js; fi

# The wheel is what gets tested, not the checkout.
$(VENV)/installed: $(VENV)/dependencies $(SOURCES) README.md LICENSE CMakeLists.txt
	@$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	@touch $@

$(VENV)/dependencies: pyproject.toml tests/tools/setup
	@tests/tools/setup venv $(VENV)
	@touch $@

$(VENV)/fuzz: $(VENV)/dependencies
	@$(PYTHON) -m pip install --quiet --group fuzz
	@touch $@

$(VENV)/packages: $(VENV)/dependencies
	@$(PYTHON) -m pip install --quiet --group packages
	@touch $@

$(VENV)/docs: $(VENV)/dependencies
	@$(PYTHON) -m pip install --quiet --group docs
	@touch $@

clean:
	rm -rf $(VENV) bin build dist .import-linter.log .mypy_cache .ruff_cache .pytest_cache .hypothesis
