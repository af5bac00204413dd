# make serve and make test are all one needs; both build .venv/ from the lock on first use and are offline afterwards.
#
# PYTHON=…  interpreter for .venv/, if the first of python3.13, 3.12, 3.11, python3 that runs is not the right one
# ARGS=…    handed to the program behind serve, test, bench, conformance, chaos and security

SHELL := /bin/sh
BIN := .venv/bin

.PHONY: help install serve test lint bench conformance chaos security lock clean which-python _build

help:
	@echo 'make install      the environment (.venv/) with everything that tests and tools need'
	@echo 'make serve        run the gateway             ARGS="--port 8080"'
	@echo 'make test         run the tests               ARGS="-k name"'
	@echo 'make lint         ruff and mypy'
	@echo 'make bench        measure                     ARGS=--short'
	@echo 'make conformance  the official kits           ARGS=--short, A2A_TCK=DIR; ARGS=--mcp or --mcp-client, MCP_SUITE=DIR; ARGS=--inspector, MCP_INSPECTOR=DIR; ARGS=--acp, ACP_PYTHON=PYTHON; ARGS=--frameworks, ADK_PYTHON=PYTHON AG2_PYTHON=PYTHON; ARGS=--js, A2A_JS=DIR'
	@echo 'make chaos        break things on purpose     ARGS=--short'
	@echo 'make security     the tests that attack'
	@echo 'make lock         compile requirements*.txt from pyproject.toml (needs uv; ARGS=--upgrade takes newer versions)'
	@echo 'make clean        remove .venv/ and what tools leave behind'

install:
	@$(call need,test)

serve:
	@$(call need,run)
	@exec $(BIN)/gateway serve $(ARGS)

test:
	@$(call need,test)
	@exec $(BIN)/python -m pytest -q -n 4 $(ARGS)    # most of what tests do is wait: four at a time suit two cores

lint:
	@$(call need,test)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench:
	@$(call need,test)
	@exec $(BIN)/python -m benchmarks $(ARGS)

conformance:
	@$(call need,test)
	@exec $(BIN)/python -m conformance $(ARGS)

chaos:
	@$(call need,test)
	@exec $(BIN)/python -m tests.chaos $(ARGS)

security:
	@$(call need,test)
	@$(BIN)/python -m pytest -q -m security $(ARGS)
	@exec $(BIN)/python -m pytest -q tests/timing.py    # by itself, because it takes the time of answers

clean:
	rm -rf .venv .venv.lock build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------------------------------------------
# Two levels: "run" is requirements.txt, "test" is requirements-test.txt, which holds the same versions and more.
# A stamp in .venv/ says what is complete: its name is a checksum of the lock and of the place (an environment holds
# absolute paths, so a copied tree must build its own). Stamps are removed first and written last: an interrupted build
# leaves none, and the next one starts from nothing. A changed lock starts from nothing too; a changed pyproject.toml
# only installs the project again.

sum = $$({ cat $(1); pwd; } | cksum | tr ' ' -)
run_stamp = .venv/.stamp-run-$(call sum,requirements.txt)
test_stamp = .venv/.stamp-test-$(call sum,requirements-test.txt)
project_stamp = .venv/.stamp-project-$(call sum,pyproject.toml setup.py)
complete = [ -x $(BIN)/python ] && [ -f "$($(1)_stamp)" ] && [ -f "$(project_stamp)" ]
need = { $(call complete,$(1)); } || $(MAKE) --no-print-directory -s _build LEVEL=$(1)

# The first interpreter that runs and is new enough. Only running it tells: version managers leave commands on PATH that fail.
define find_python
py=; for try in "$$PYTHON" python3.13 python3.12 python3.11 python3; do \
	  if [ -n "$$try" ] && "$$try" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 </dev/null; then \
	    py=$$try; break; fi; done; \
	if [ -z "$$py" ]; then \
	  echo 'No Python 3.11 or newer that runs was found on PATH. Install one, or say make PYTHON=/path/to/python.' >&2; exit 1; fi; \
	if [ -n "$$PYTHON" ] && [ "$$py" != "$$PYTHON" ]; then \
	  echo "PYTHON=$$PYTHON does not run or is older than 3.11; taking $$py." >&2; fi
endef

which-python:
	@$(find_python); "$$py" -c 'import sys; print(sys.executable)'

_build: export ALONE_TEXT = $(ALONE)
_build: export BUILD_TEXT = $(BUILD)
_build:
	@$(find_python); exec "$$py" -c "$$ALONE_TEXT" /bin/sh -euc "$$BUILD_TEXT" build "$$py" $(LEVEL)

# One build at a time. The kernel gives the lock back when the build ends, however it ends.
define ALONE
import fcntl, os, sys
fd = os.open(".venv.lock", os.O_RDWR | os.O_CREAT, 0o644)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("waiting for another build of .venv/", file=sys.stderr, flush=True)
    fcntl.flock(fd, fcntl.LOCK_EX)
os.set_inheritable(fd, True)
os.execv(sys.argv[1], sys.argv[1:])
endef

define BUILD
py=$$1 level=$$2 run=$(run_stamp) test=$(test_stamp) project=$(project_stamp)
if [ "$$level" = run ]; then lock=requirements.txt stamp=$$run; else lock=requirements-test.txt stamp=$$test; fi
if [ -x $(BIN)/python ] && [ -f "$$run" ]; then base=1; else base=; fi
if [ -n "$$base" ] && [ -f "$$stamp" ]; then packages=; else packages=1; fi
if [ -z "$$packages" ] && [ -f "$$project" ]; then exit; fi    # somebody else has just built it

if [ -n "$$packages" ]; then
  echo "building .venv/ from $$lock with $$py" >&2
  rm -f .venv/.stamp-*
  if [ -z "$$base" ]; then
    rm -rf .venv
    "$$py" -m venv .venv >/dev/null 2>&1 || { rm -rf .venv; "$$py" -m venv --without-pip .venv; }
  fi
else
  rm -f .venv/.stamp-project-*
fi
if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"
elif "$$py" -m pip --version >/dev/null 2>&1; then pip="$$py -m pip --python $(BIN)/python"
else echo "$$py has neither ensurepip nor pip: install the system's python3-venv or python3-pip package." >&2; exit 1
fi
pip="$$pip --quiet --disable-pip-version-check --no-input install --no-compile --no-build-isolation"
if [ -n "$$packages" ]; then
  # jsonrpcserver comes as source. The setuptools of the lock builds it, nothing from outside; so setuptools goes first.
  awk '/^setuptools==/ {p = 1}  p {print}  !/\\$$/ {p = 0}' $$lock > .venv/setuptools.txt
  $$pip --require-hashes -r .venv/setuptools.txt
  $$pip --require-hashes -r $$lock
fi
$$pip --no-deps --editable .
env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -qq -j 0 .venv/lib gateway agents || true   # only a cache
if [ -n "$$packages" ]; then : > "$$run"; fi
if [ "$$level" = test ]; then : > "$$test"; fi
: > "$$project"
endef

# Without the registry's address in the file: where packages come from is the business of the machine that installs.
UV ?= uv
LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--annotation-style line --custom-compile-command 'make lock' $(ARGS) pyproject.toml --group build

lock:
	@$(UV) --version >/dev/null 2>&1 || { echo 'make lock needs uv: say make lock UV=/path/to/uv' >&2; exit 1; }
	$(LOCK) -o requirements.txt
	$(LOCK) --group test --extra grpc -c requirements.txt -o requirements-test.txt
