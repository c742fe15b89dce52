# The commands a person and CI run. Everything lands in .venv; nothing is needed before but Python 3.11+, pip, git, make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := 2.13.0
# These only compute, so they may share the cores; the others talk to real servers in real time and have them alone, in a
# process of their own, so that the crash of a library costs one test and names it.
SIDE_BY_SIDE := tests/architecture tests/unit tests/contract tests/golden
WORKERS ?= 2
TOOLS  := build/tools
ARCH   ?= $(shell dpkg --print-architecture)

.PHONY: setup check fix test fuzz chaos soak gpu demo bench wheel lock wheelhouse deb deb-test sbom audit clean
.DEFAULT_GOAL := demo

# The runtime alone (no torch): enough for `make demo`.
$(VENV)/.runtime: pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) tools/make_venv.py $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

# Everything a developer needs. torch comes first and as the CPU build, so that the extra finds it and never pulls CUDA:
# from the configured indexes where they carry it, else from PyTorch's own CPU index.
$(VENV)/.dev: $(VENV)/.runtime pyproject.toml
	$(BIN)/pip install --quiet "torch==$(TORCH)+cpu" 2>/dev/null \
	  || $(BIN)/pip install --quiet --index-url https://download.pytorch.org/whl/cpu "torch==$(TORCH)+cpu"
	$(BIN)/pip install --quiet --editable ".[torch,dev]"
	@touch $@

setup: $(VENV)/.dev

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The servers that the tests talk to are Debian packages; installed where that is allowed, named where it is not.
test: setup
	sh tools/install-test-servers.sh
	$(MAKE) --no-print-directory check
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	@failed=0; set -x; \
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile $(SIDE_BY_SIDE) || failed=1; \
	$(BIN)/pytest --numprocesses 1 $(addprefix --ignore=,$(SIDE_BY_SIDE)) || failed=1; \
	exit $$failed
endif

# Strange bytes into everything that reads bytes; ARGS="--inputs 10000000 --seed 1" is a long run.
fuzz: setup
	@PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz $(ARGS)

# What needs an NVIDIA GPU, after `make setup` and then, into the same environment, a CUDA build of torch and the extra
# [tensorrt]. It does not depend on setup, which would put the CPU build of torch back.
gpu:
	$(BIN)/pytest tests/gpu $(ARGS)

# ONCE=1 ends after the story and prints one JSON line.
demo: $(VENV)/.runtime
	@$(BIN)/fisher-agent demo $(if $(ONCE),--once --json)

bench: setup
	@$(BIN)/python tools/bench.py $(ARGS)

# Breaks what is around an agent, for hours if asked to: ARGS="--rounds 4 --kills 1000 --seed 1".
chaos: setup
	sh tools/install-test-servers.sh
	PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

soak: setup
	sh tools/install-test-servers.sh
	PYTHONPATH=tests $(BIN)/python -m soak $(ARGS)

wheel: setup
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# What the packages are made of: every dependency, one version, with hashes, for every supported Python and architecture.
# What is locked stays until ARGS=--upgrade, or until pyproject.toml asks for something else.
LOCK := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --custom-compile-command "make lock"

$(TOOLS)/.done: tools/packaging.txt
	@test -x $(TOOLS)/bin/pip || $(PYTHON) tools/make_venv.py $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --requirement tools/packaging.txt
	@touch $@

lock: $(TOOLS)/.done
	$(LOCK) $(ARGS) --extra signed --output-file deploy/requirements.lock pyproject.toml
	echo pip | $(LOCK) $(ARGS) --output-file deploy/pip.lock -

# ARCH=amd64 or arm64; without it this machine's.
wheelhouse:
	PYTHON=$(PYTHON) tools/wheelhouse.sh --arch $(ARCH) --out dist/wheelhouse-$(ARCH)

deb:
	PYTHON=$(PYTHON) tools/build_deb.sh --arch $(ARCH)

# As root; apart from `make test` because it makes a Debian of its own first.
deb-test:
	tools/test_deb.sh $(ARGS)

# dist/fisher-agent.cdx.json (CycloneDX): what an installation on this machine has, with licences. It installs the
# wheelhouse into build/sbom as a box would.
sbom: $(TOOLS)/.done wheelhouse
	sh dist/wheelhouse-$(ARCH)/install.sh $(CURDIR)/build/sbom/fisher-agent
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml \
	  --output-reproducible --output-file dist/fisher-agent.cdx.json build/sbom/fisher-agent/bin/python

# Known vulnerabilities of what is locked. It asks pypi.org (or ARGS="--vulnerability-service osv") over the network;
# strict, because without an answer it would say "none found".
audit: $(TOOLS)/.done
	$(TOOLS)/bin/pip-audit --requirement deploy/requirements.lock --require-hashes --disable-pip --strict \
	  --progress-spinner off $(ARGS)

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
