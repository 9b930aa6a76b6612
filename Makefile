# Two commands on a fresh machine: `make quickstart` and `make test`. Both set up .venv themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test tested test-slow fuzz gpu lint typecheck bench clean

$(INSTALLED): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c .ci/constraints.txt -e '.[test]'
	touch $@

# Stage one once, then stage two six times on the same store: cross-entropy against EGA, three seeds.
quickstart: $(INSTALLED)
	$(BIN)/egapipe extract
	$(BIN)/egapipe compare

# Types are checked beside the tests, of which some wait.
test: lint
	$(MAKE) --jobs=2 typecheck tested

# Three files at a time, as some wait, each process with one thread and a Ray of its own where it needs one, in the
# order of tests/conftest.py: pytest-xdist would leave those of few tests, which are long, to the end.
tested: $(INSTALLED)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m "not slow and not gpu" -n 3 --dist loadfile --no-loadscope-reorder

# One after the other: some look for processes to kill, some measure memory.
test-slow: $(INSTALLED)
	EGAPIPE_GPU_TESTS=cpu $(BIN)/pytest -m "slow or gpu"

# Every reader of a file that travels, on changed bytes, SECONDS each (docs/security.md).
SECONDS ?= 120
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

# What runs on a GPU: its tests, then training and extraction measured; BENCH='--size quick' is short,
# BENCH='--data DIR --teacher DIR' trains on CIFAR-100 too (docs/benchmarks.md).
gpu: $(INSTALLED)
	$(BIN)/pytest -m gpu tests/gpu
	$(BIN)/python -m egapipe.stages.bench.device --json gpu.json $(BENCH)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(INSTALLED)
	$(BIN)/mypy -p egapipe.pipeline -p egapipe.stages -p tests

bench: $(INSTALLED)
	$(BIN)/egapipe bench reader
	$(BIN)/egapipe bench ega
	$(BIN)/egapipe bench extract
	$(BIN)/egapipe bench distill
	$(BIN)/egapipe bench epoch
	$(BIN)/egapipe bench scale

clean:
	rm -rf $(VENV) build dist *.egg-info
