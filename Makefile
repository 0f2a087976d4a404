# Needs Python 3.10 or newer and make. Everything else is set up in .venv and .cache.
PYTHON ?= python3
JOBS ?= 2
VENV_PYTHON := .venv/bin/python

# Packages from outside .venv must not leak in.
unexport PYTHONPATH PYTHONHOME

.PHONY: help setup demo test newest manager bench lint world clean

help:  ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

setup:  ## .venv and a ComfyUI (COMFYUI_PATH if set), done by the others as needed
	@command -v "$(PYTHON)" >/dev/null || { echo "Setup failed: $(PYTHON) not found. Install Python 3.10 or newer, or run: make PYTHON=/path/to/python3"; exit 1; }
	@"$(PYTHON)" tests/host/environment.py

demo: setup  ## a headless ComfyUI runs two quickstart workflows; prints the paths of the videos and of a contact sheet
	@$(VENV_PYTHON) -m tests.host.demo

test: setup  ## every test, the real ComfyUI included (JOBS=2 processes; ARGS="..." goes to pytest)
	@$(VENV_PYTHON) -m pytest tests -n $(JOBS) --dist loadgroup $(ARGS)

newest: setup  ## the browser tests on the newest comfyui-frontend-package, in a folder of its own
	@$(VENV_PYTHON) -m pip install --quiet --upgrade --no-deps --target .cache/newest comfyui-frontend-package
	@FLEXIACT_FRONTEND="$(CURDIR)/.cache/newest/comfyui_frontend_package/static" $(VENV_PYTHON) -m pytest tests/test_browser $(ARGS)

manager: setup  ## the pinned ComfyUI Manager installs this checkout, as committed, into a fresh ComfyUI
	@FLEXIACT_MANAGER=1 $(VENV_PYTHON) -m pytest tests/test_host/test_manager.py $(ARGS)

bench: setup  ## ours, the released formulation and plain diffusers side by side (ARGS="--full" on a GPU)
	@$(VENV_PYTHON) -m benchmarks $(ARGS)

lint: setup  ## ruff
	@$(VENV_PYTHON) -m ruff check .

world: setup  ## trains the small world's weights anew
	@$(VENV_PYTHON) -m flexiact_core.world.making.build $(ARGS)

clean:  ## removes .venv, .cache and .demo
	rm -rf .venv .cache .demo
