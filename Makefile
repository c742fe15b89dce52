# The commands a person and CI run. Everything lands in .venv; nothing is needed before but Python 3.11+, pip, git, make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  := 2.13.0
# These only compute, so they may share the cores; the others talk to real servers in real time and have them alone.
SIDE_BY_SIDE := tests/architecture tests/unit tests/contract tests/golden
WORKERS ?= 2

.PHONY: setup check fix test fuzz chaos gpu demo bench wheel clean
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
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile $(SIDE_BY_SIDE)
	$(BIN)/pytest $(addprefix --ignore=,$(SIDE_BY_SIDE))
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

wheel: setup
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
