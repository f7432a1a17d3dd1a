# make demo, make test and make check do all their own set-up in .venv; a second run reuses it.
PYTHON ?= python3
TORCH := torch==2.13.0
BIN := .venv/bin
DEMO := demo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location

.PHONY: demo test check format clean

demo: .venv/ready
	@# one thread: on a graph this small, or a busy machine, more of them only wait for each other
	@echo "1. Pretrain on a small shipped citation graph, without labels (under a minute)"
	OMP_NUM_THREADS=1 $(BIN)/graphssl pretrain citations-mini --out $(DEMO)/run --overwrite
	@echo; echo "2. Judge the frozen codes, with controls beside them"
	OMP_NUM_THREADS=1 $(BIN)/graphssl evaluate $(DEMO)/run --protocol node-linear,node-cluster
	@echo; echo "3. Draw them: one dot a paper, coloured by a label that pretraining never saw"
	OMP_NUM_THREADS=1 $(BIN)/graphssl plot $(DEMO)/run --to $(DEMO)/codes.png --overwrite

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: .venv/ready .venv/checked
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: .venv/ready .venv/checked
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/ready: pyproject.toml Makefile
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "python3 -m venv failed; on Debian: apt install python3-venv"; exit 1; }
	@echo "installing torch (CPU), graphssl and test tools into .venv; this is done once and takes minutes"
	$(PIP) "$(TORCH)"
	$(PIP) "$(TORCH)" -e ".[test]"
	touch $@

.venv/checked: .venv/ready
	$(PIP) "$(TORCH)" -e ".[dev]"
	touch $@

clean:
	rm -rf .venv $(DEMO) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
