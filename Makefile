PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup lint test test-each slow scatter demo mesh-demo clean

setup: $(STAMP)

$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else f"pyg_stmamba is tested with Python 3.10 to 3.13, this is {v[0]}.{v[1]}; choose another with make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,test,dev]'
	@touch $(STAMP)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread a worker: two workers with two threads each would fight over two cores.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

# The tests once for each implementation that a CPU runs fast, which takes all inputs that it can.
test-each: setup
	for name in numba torch reference; do \
	    OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow' --implementation $$name \
	        || exit 1; \
	done

slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

# torch-scatter is built from its source package, which takes minutes, and kept apart, since PyG
# changes its ways where it finds it.
scatter: setup
	@test -d .venv/scatter/torch_scatter || { \
	    $(BIN)/python -m pip install --quiet setuptools wheel && \
	    $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target .venv/scatter torch-scatter==2.1.2; }
	OMP_NUM_THREADS=1 PYTHONPATH=.venv/scatter $(BIN)/python -m pytest -n 2 tests/ops/test_graph_attention.py tests/nn/spatial

demo: setup
	$(BIN)/pyg-stmamba train --config examples/demo.yaml

mesh-demo: setup
	$(BIN)/pyg-stmamba train --config examples/mesh_demo.yaml

clean:
	rm -rf .venv build dist *.egg-info
