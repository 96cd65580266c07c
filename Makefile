# What a developer runs, and what .ci/run runs. Everything happens in .venv; only `install` needs the network.
#
#   make install      .venv with everything, again only if pyproject.toml or the constraints changed
#   make demo         the main job from end to end; writes report/
#   make test         the default test suite
#   make slow         one third of the slow tests, another third each day; PARTS=1 runs all of them
#   make lint         ruff and mypy
#   make benchmarks   everything behind benchmarks/results, and the tables made from it (hours)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# One compute thread a test worker: two workers with two threads each stand in each other's way on two cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1
WORKERS ?= 2
# the CPU build is half the size; `make TENSORFLOW=tensorflow` where there is none (macOS, ARM)
TENSORFLOW ?= tensorflow-cpu>=2.16
PYTEST_ARGS ?=
PARTS ?= 3
PART ?= $(shell date +%j)
# every script that answers a question; the others make what is shipped
BENCHMARKS ?= $(filter-out benchmarks/make_% benchmarks/pretrain_% benchmarks/readme_% benchmarks/zoo_% benchmarks/_%,$(wildcard benchmarks/*.py))

.PHONY: install demo test slow lint benchmarks docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints-cpu.txt -e '.[onnx,timm,transformers,postgres,search,dev]' '$(TENSORFLOW)'
	touch $@

demo: install
	$(BIN)/cg demo

test: install
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

slow: install
	$(BIN)/python .ci/slow_tests.py --part $(PART) --parts $(PARTS) > .venv/slow_tests  # names may hold spaces
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadfile $(PYTEST_ARGS) @.venv/slow_tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/make_statistics.py
	$(BIN)/python docs/make_operators.py
	$(BIN)/python benchmarks/readme_tables.py

benchmarks: install
	set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done
	$(BIN)/python benchmarks/readme_tables.py

clean:
	rm -rf .venv build dist report out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
