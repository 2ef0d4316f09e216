# Everything here builds .venv first, and all but `make quick` fetches ComfyUI, once; python3 (3.10 or newer, with venv) is
# all it asks for.
PYTHON ?= python3
ARGS ?=

# The tests start some hundred processes that import PyTorch. Where this is set, each of them compiles all of it again.
unexport PYTHONDONTWRITEBYTECODE

# What `make quick` runs: no ComfyUI, no network, no diffusers, no process that trains.
QUICK = tests/core tests/training/losses tests/training/test_hardware.py tests/training/test_sheets.py \
	tests/training/data/test_manifest.py tests/training/data/test_edges.py tests/training/evaluation/test_metrics.py \
	tests/training/run/test_config.py tests/training/run/test_explain.py tests/training/run/test_noise.py \
	tests/training/run/test_events.py tests/test_boundaries.py tests/test_docs.py tests/test_style.py

.PHONY: help demo ui quick test setup tools

help:
	@echo "make demo   dress somebody: real ComfyUI, shipped workflow, one picture in output/"
	@echo "make ui     open ComfyUI with AnyDressing in it, in your browser"
	@echo "make quick  run the fast tests, under a minute"
	@echo "make test   run all tests; extra pytest arguments in ARGS, e.g. make test ARGS='tests/core -x'"
	@echo "make setup  only build what these need (.venv and .comfyui, some 6 GB)"

setup:
	@$(PYTHON) -m dev.setup

demo: setup
	@.venv/bin/python -m dev.demo

ui: setup
	@.venv/bin/python -m dev.ui

tools:
	@$(PYTHON) -m dev.setup --tools

quick: tools
	@OMP_NUM_THREADS=1 .venv/bin/pytest -q -n 2 --dist loadfile -k "not pyright" $(QUICK) $(ARGS)

# Two processes of one thread each: nearly every test uses one core. A file stays in one of them, because its tests share
# what they set up, and files come in their order: sorted by the number of tests, the longest would be last. Not
# `python -m pytest`: that puts this folder on sys.path, where ComfyUI would find our `nodes`.
test: setup
	@OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)
