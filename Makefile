# Everything here builds .venv and fetches ComfyUI first, once; python3 (3.10 or newer, with venv) is all it asks for.
PYTHON ?= python3
ARGS ?=

.PHONY: help demo ui test setup

help:
	@echo "make demo   dress somebody: real ComfyUI, shipped workflow, one picture in output/"
	@echo "make ui     open ComfyUI with AnyDressing in it, in your browser"
	@echo "make test   run the tests; extra pytest arguments in ARGS, e.g. make test ARGS='tests/core -x'"
	@echo "make setup  only build what these need (.venv and .comfyui, some 6 GB)"

setup:
	@$(PYTHON) -m dev.setup

demo: setup
	@.venv/bin/python -m dev.demo

ui: setup
	@.venv/bin/python -m dev.ui

# Not `python -m pytest`: that puts this folder on sys.path, where ComfyUI's `import nodes` would find ours.
test: setup
	@.venv/bin/pytest $(ARGS)
