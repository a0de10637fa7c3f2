# One command each; `make help` lists them. On a host they use .venv, which `make setup` makes; in the image
# (TRAIN_WORKER_IMAGE=1) the image's own Python.
#
#   TASK= DATA= CONFIG= RUN= RUNS= ARGS=    become --task, --data, --config, the run or runs, and whatever else the
#                     worker takes.
#   make docker-…                     the same in containers (docs/container.md).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev train fetch prepare doctor evaluate audit predict export ensemble sweep report runs \
        test crash test-container check lock clean \
        bench-data bench-loop bench-gpu docker-build docker-train docker-dev docker-run docker-shell

# Words so common that others use them too: only what stands on make's own command line counts.
$(foreach word,DATA CONFIG RUN RUNS ARGS,$(if $(filter environment,$(origin $(word))),$(eval $(word) :=)))

VENV := .venv
ifeq ($(TRAIN_WORKER_IMAGE),1)
PY := python
READY :=
READY_DEV :=
else
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
endif

WORKER = exec $(PY) training/train_worker.py
HAVING = $(if $($(1)),$(2) "$($(1))")
CHOICE = $(call HAVING,TASK,--task) $(call HAVING,DATA,--data) $(call HAVING,CONFIG,--config)
CHOSEN_RUN = $(if $(RUN),"$(RUN)") $(call HAVING,TASK,--task) $(call HAVING,DATA,--data)
MEMBERS = $(strip $(RUNS)) $(call HAVING,DATA,--data) $(call HAVING,CONFIG,--config)
NEED_RUNS = $(if $(RUNS)$(CONFIG),,$(error $@ needs RUNS="<run> <run> …", or CONFIG=<file that names them>))
NEED_RUN = $(if $(RUN),,$(error $@ needs RUN=<id, its unique beginning, or a folder>))

TORCH_LOCK := training/requirements.torch.txt
TRAIN_LOCK := training/requirements.train.txt
TRACKERS_LOCK := training/requirements.trackers.txt
TRANSFORMERS_LOCK := training/requirements.transformers.txt
DEV_LOCK := training/requirements.dev.txt
LOOP_LOCK := benchmarks/requirements.loop.txt
LOOP_VENV := .venv-loop
CODE := backend training tests tools $(wildcard benchmarks)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  TASK=convlstm  DATA=folder|sample  CONFIG=preset|file  RUN=run  RUNS='run run …'  ARGS='--set training.epochs=10 …'"

setup: $(READY) ## Make .venv with everything that training needs (several minutes and 6 GB of disk, once)

setup-dev: $(READY_DEV) ## The same, and what tests and checks need

# The pinned PyTorch (with torchvision 0.20.1) has no wheels for Python 3.13; the worker itself runs there.
$(VENV)/bin/python:
	@for python in $(PYTHON) python3.11 python3.12 python3; do \
	  if $$python -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; \
	  then echo "Making $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); fi; \
	done; echo "error: no Python 3.11 or 3.12 found; install one, or name it: make setup PYTHON=…" >&2; exit 1

$(VENV)/.ready: $(TORCH_LOCK) $(TRAIN_LOCK) | $(VENV)/bin/python
	@echo "Installing PyTorch and the rest into $(VENV): several minutes and 6 GB of disk, once"
	$(PY) -m pip install --quiet --require-hashes -r $(TORCH_LOCK) -r $(TRAIN_LOCK)
	@touch $@

$(VENV)/.ready-dev: $(TORCH_LOCK) $(TRAIN_LOCK) $(DEV_LOCK) | $(VENV)/bin/python
	@echo "Installing PyTorch, the rest and the tools for tests into $(VENV): several minutes and 6 GB of disk, once"
	$(PY) -m pip install --quiet --require-hashes -r $(TORCH_LOCK) -r $(TRAIN_LOCK) -r $(DEV_LOCK)
	@touch $(VENV)/.ready $@

train: $(READY) ## Prepare, train, evaluate, report: TASK= DATA= CONFIG= (RUN= continues that run; ARGS="--seeds 1,2,3 --detach")
	@$(WORKER) train $(CHOICE) $(call HAVING,RUN,--resume) $(ARGS)

fetch: $(READY) ## Download and unpack the dataset: CONFIG= (ARGS="--set data.manifest=FILE" or "--drive-id ID")
	@$(WORKER) fetch $(call HAVING,TASK,--task) $(call HAVING,CONFIG,--config) $(ARGS)

prepare: $(READY) ## Read, check, split and cache the data: TASK= DATA= CONFIG=
	@$(WORKER) prepare $(CHOICE) $(ARGS)

doctor: $(READY) ## Check machine, disks, data and settings before training: TASK= DATA= CONFIG= (ARGS="--price-per-hour 0.4")
	@$(WORKER) doctor $(CHOICE) $(ARGS)

evaluate: $(READY) ## Score a run's best weights: RUN= (DATA=, ARGS="--split test"; ARGS="--all" for every run of TASK=)
	@$(if $(findstring --all,$(ARGS))$(findstring --predictions,$(ARGS)),,$(NEED_RUN))$(WORKER) evaluate $(CHOSEN_RUN) $(ARGS)

audit: $(READY) ## Look for leaks inside a run's split: RUN= (ARGS=<another run> compares the two)
	@$(NEED_RUN)$(WORKER) audit "$(RUN)" $(ARGS)

predict: $(READY) ## Apply a run's best weights: RUN= DATA=<folder of raw files> ARGS="--out folder"
	@$(NEED_RUN)$(WORKER) predict "$(RUN)" $(if $(DATA),"$(DATA)") $(ARGS)

export: $(READY) ## A run's best weights as one file: RUN= ARGS="--format onnx" (or pth, safetensors; --out FILE)
	@$(NEED_RUN)$(WORKER) export "$(RUN)" $(ARGS)

ensemble: $(READY) ## Average landmark models on images new to all: RUNS="A B C" or CONFIG=FILE (ARGS="--split val")
	@$(NEED_RUNS)$(WORKER) ensemble $(MEMBERS) $(ARGS)

sweep: $(READY) ## Choose the best combination of landmark models on val: RUNS= or CONFIG= (ARGS="--k 4 --detach")
	@$(NEED_RUNS)$(WORKER) sweep $(MEMBERS) $(ARGS)

report: $(READY) ## Write a run's report and model card anew, and the list of runs: RUN= (without it, of all runs)
	@$(WORKER) report $(if $(RUN),"$(RUN)",--all) $(ARGS)

runs: $(READY) ## List runs, or ARGS="best", "show RUN", "compare RUN RUN", "export", "delete RUN", "rebuild"
	@$(WORKER) runs $(or $(ARGS),list)

test: $(READY_DEV) ## All tests but the slow ones and those that need a container or a GPU (ARGS= goes to pytest)
	@exec $(PY) -m pytest -m "not slow and not container and not gpu" $(ARGS)

crash: $(READY_DEV) ## Only the tests that kill processes at chosen moments
	@exec $(PY) -m pytest -m crash $(ARGS)

test-container: $(READY_DEV) ## Only the tests that build and run the image (needs Docker)
	@exec $(PY) -m pytest -m container $(ARGS)

check: $(READY_DEV) ## Style, types, Dockerfile, compose.yaml, dead links in the documentation
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	$(PY) -m mypy
	$(dir $(PY))hadolint training/Dockerfile.train
	$(PY) -m check_jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(PY) tools/check_links.py

# Docker makes folders that it is to mount as root where they are missing, so that they are made here first.
DOCKER ?= docker
IMAGE = convlstm-training
BASE_IMAGE =
GPUS = $(if $(shell command -v nvidia-smi),--gpus all)
TERMINAL = $(shell test -t 0 && echo -it)
DOCKER_ARGS =
IN_IMAGE = mkdir -p model_output datasets && exec $(DOCKER) run --rm $(TERMINAL) $(GPUS) --user $$(id -u):$$(id -g) --shm-size 8g --stop-timeout 120 \
  -v "$(CURDIR)/model_output":/app/model_output -v "$(CURDIR)/datasets":/app/datasets $(DOCKER_ARGS)
MOUNTED_CODE = -v "$(CURDIR)/backend":/app/backend -v "$(CURDIR)/training":/app/training
# A folder or a file of this machine is mounted beside the rest; a word (sample, a preset) is handed on.
MOUNTED = $(if $(wildcard $($(1))),-v "$(realpath $($(1)))":/mounted/$(notdir $(realpath $($(1)))):ro)
NAMED = $(if $($(1)),$(2) "$(if $(wildcard $($(1))),/mounted/$(notdir $(realpath $($(1)))),$($(1)))")
DOCKER_TRAIN = $(call MOUNTED,DATA) $(call MOUNTED,CONFIG) $(IMAGE) train $(call HAVING,TASK,--task) \
  $(call NAMED,DATA,--data) $(call NAMED,CONFIG,--config) $(call HAVING,RUN,--resume) $(ARGS)

docker-build: ## Build the image (BASE_IMAGE= another base, ARGS= goes to docker build)
	$(DOCKER) build $(if $(BASE_IMAGE),--build-arg BASE_IMAGE="$(BASE_IMAGE)") \
	  --build-arg REVISION="$$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)" \
	  --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	  -t $(IMAGE) $(ARGS) -f training/Dockerfile.train .

docker-train: ## In the image: what train does (DOCKER_ARGS= goes to docker run)
	@$(IN_IMAGE) $(DOCKER_TRAIN)

docker-dev: ## The same with this folder's code in place of the image's
	@$(IN_IMAGE) $(MOUNTED_CODE) $(DOCKER_TRAIN)

docker-run: ## In the image: any command of the worker, ARGS="evaluate RUN"
	@$(IN_IMAGE) $(IMAGE) $(ARGS)

docker-shell: ## A shell in the image
	@$(IN_IMAGE) $(IMAGE) bash

bench-data: $(READY_DEV) ## Reading and preparing data against xarray and plain decoding
	$(PY) benchmarks/radar_volume.py
	$(PY) benchmarks/radar_data.py $(ARGS)

bench-loop: $(READY_DEV) ## The loop's own cost against a bare PyTorch loop, Lightning and Accelerate
	@test -d $(LOOP_VENV) || $(PY) -m venv --without-pip $(LOOP_VENV)
	@$(PY) -m pip --python $(LOOP_VENV)/bin/python install --quiet --no-deps --require-hashes -r $(LOOP_LOCK)
	@$(PY) -c 'import site; print(site.getsitepackages()[0])' > $$(echo $(LOOP_VENV)/lib/python3*/site-packages)/worker.pth
	@exec $(LOOP_VENV)/bin/python benchmarks/loop.py $(ARGS)

bench-gpu: ## Step time and memory on this machine's GPU, with whatever `python` is active
	@exec python benchmarks/gpu.py $(ARGS)

# Versions already in the lock files stay; `make lock ARGS=--upgrade` takes the newest.
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $(ARGS)
NOT_IN_IMAGE = torch torchvision triton $(shell sed -n 's/^\(nvidia-[a-z0-9-]*\)==.*/\1/p' $(TORCH_LOCK))

lock: ## Recompile the pinned requirements from the .in files (needs uv)
	$(COMPILE) $(addprefix --no-emit-package ,$(NOT_IN_IMAGE)) -o $(TRAIN_LOCK) \
	  training/requirements.torch.in training/requirements.train.in
	$(COMPILE) -c $(TRAIN_LOCK) -o $(TORCH_LOCK) training/requirements.torch.in
	$(COMPILE) -c $(TRAIN_LOCK) -c $(TORCH_LOCK) -o $(TRACKERS_LOCK) training/requirements.trackers.in
	$(COMPILE) -c $(TRAIN_LOCK) -c $(TORCH_LOCK) -c $(TRACKERS_LOCK) -o $(TRANSFORMERS_LOCK) training/requirements.transformers.in
	$(COMPILE) -c $(TRAIN_LOCK) -c $(TORCH_LOCK) -c $(TRACKERS_LOCK) -c $(TRANSFORMERS_LOCK) -o $(DEV_LOCK) training/requirements.dev.in
	$(COMPILE) -c $(TRAIN_LOCK) -c $(TORCH_LOCK) -o $(LOOP_LOCK) benchmarks/requirements.loop.in \
	  $(addprefix --no-emit-package ,$(sort $(shell sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' $(TRAIN_LOCK) $(TORCH_LOCK))))

clean: ## Remove caches of tools (runs, datasets and .venv stay)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
