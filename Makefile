# deit-bench: `make` shows what there is.
# Recipes say themselves where a failure ends them: the make of macOS (3.81) has no .SHELLFLAGS to say it for all.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
PROFILE ?= full
PRECISION ?= fp32
DATA ?=
DEVICE ?=
ENGINE ?=
PHASES ?=
SPEC ?=
NPROC ?=
SCALING ?=
STOP ?=
SEEDS ?=
MAX_BATCH ?=
MEMORY_SHARE ?=
POWER_WATTS ?=
ARGS ?=
RESULTS ?= results
MINE ?=
TORCH_INDEX ?=
BROWSER ?= chromium

SYSTEM := $(shell uname -s)-$(shell uname -m)
NVIDIA := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)
# What `make bench` measures: Apple Silicon -> mlx, NVIDIA -> cuda, everything else -> ipex.
PLATFORM ?= $(if $(filter Darwin-arm64,$(SYSTEM)),mlx,$(if $(NVIDIA),cuda,ipex))

FOLDER_mlx := bench-mlx
FOLDER_cuda := bench-tf-cuda
FOLDER_ipex := bench-torch-ipex
FOLDER_spec := shared-spec
FOLDER_aggregate := aggregate
PACKAGE_mlx := bench_mlx
PACKAGE_cuda := bench_tf_cuda
PACKAGE_ipex := bench_torch_ipex

# Extras that this system's frameworks come with, and their pins.
EXTRA_mlx := $(if $(filter Darwin-%,$(SYSTEM)),macos,$(if $(NVIDIA),cuda,cpu))
EXTRA_cuda := $(if $(NVIDIA),cuda,cpu)
EXTRA_ipex := $(if $(filter Linux-x86_64,$(SYSTEM)),ipex,stock)
LOCKS_mlx := $(if $(filter cuda,$(EXTRA_mlx)),requirements-cuda.lock)
LOCKS_cuda := $(if $(filter cuda,$(EXTRA_cuda)),requirements-cuda.lock)
PIP_ipex := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# What an environment must be able to import before it counts as made.
IMPORTS_spec := shared_spec pytest mypy
IMPORTS_aggregate := aggregate matplotlib scipy
IMPORTS_mlx := bench_mlx mlx.core
IMPORTS_cuda := bench_tf_cuda tensorflow
IMPORTS_ipex := bench_torch_ipex torch

# Environments that a platform's peers need; timm competes on an NVIDIA GPU.
PEERS_mlx := mlx-image $(if $(NVIDIA),timm)
PEERS_cuda := keras-hub $(if $(NVIDIA),timm)
PEERS_ipex := torch-2.8 torch-newest

# Which folders' tests can run here; TensorFlow's CUDA package is for Linux.
TESTABLE := spec aggregate mlx ipex $(if $(filter Linux-%,$(SYSTEM)),cuda)
LEFT_OUT := $(filter-out $(TESTABLE),spec aggregate mlx ipex cuda)

# `make bench-cuda` is for the GPU: without a working driver it says so at once, and measures a CPU only with DEVICE=cpu.
DEVICE_cuda := cuda

OPTIONS = --profile $(PROFILE) --precision $(PRECISION) --out "$(RESULTS)" \
  $(if $(DATA),--data "$(DATA)") $(if $(or $(DEVICE),$(DEVICE_$*)),--device $(or $(DEVICE),$(DEVICE_$*))) \
  $(if $(ENGINE),--engine $(ENGINE)) $(if $(PHASES),--phases $(PHASES)) $(if $(SPEC),--spec "$(SPEC)") \
  $(if $(NPROC),--nproc $(NPROC)) $(if $(SCALING),--scaling $(SCALING)) $(if $(STOP),--stop $(STOP)) $(if $(SEEDS),--seeds $(SEEDS)) \
  $(if $(MAX_BATCH),--max-batch $(MAX_BATCH)) $(if $(MEMORY_SHARE),--memory-share $(MEMORY_SHARE)) \
  $(if $(POWER_WATTS),--power-watts "$(POWER_WATTS)") $(ARGS)

.PHONY: help setup bench doctor report screenshot test lint clean $(foreach p,mlx cuda ipex,bench-$(p) peers-$(p)) \
  $(foreach p,spec aggregate mlx cuda ipex,setup-$(p) test-$(p)) test-across

help: ## show this
	@echo "deit-bench on this machine: $(PLATFORM)"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo "  make setup-*      one environment: spec, aggregate, mlx, cuda, ipex (made on first use anyway)"
	@echo "Variables: PROFILE=quick|full PRECISION=fp32|bf16 DATA=folder|archive|synthetic DEVICE= ENGINE= PHASES=a,b SPEC=file NPROC=2 SCALING=weak"
	@echo "           STOP=target SEEDS=1 MAX_BATCH=256 MEMORY_SHARE=0.5 POWER_WATTS=38 ARGS='any other option of run'"
	@echo "           RESULTS=folder PYTHON=python3.12 TORCH_INDEX=url (a CPU-only index for torch)"

# The result that a run has just written is what is newer in RESULTS than the run's beginning.
bench: ## measure this machine in a few minutes, then show how it stands to others
	@began=$$(mktemp) && trap 'rm -f "$$began"' EXIT; status=0; \
	$(MAKE) --no-print-directory bench-$(PLATFORM) PROFILE=$(if $(filter command line,$(origin PROFILE)),$(PROFILE),quick) || status=1; \
	mine=$$(find "$(RESULTS)" -maxdepth 1 \( -name '*.json' -o -name '*.json.gz' \) -newer "$$began" 2>/dev/null | sort | tail -n 1); \
	$(MAKE) --no-print-directory report MINE="$$mine"; exit $$status

bench-mlx: setup-mlx ## full benchmark with MLX (Apple Silicon; also CUDA and CPU on Linux)
bench-cuda: setup-cuda ## full benchmark with TensorFlow on an NVIDIA GPU
bench-ipex: setup-ipex ## full benchmark with PyTorch and Intel's extension on a CPU
bench-mlx bench-cuda bench-ipex: bench-%:
	@$(FOLDER_$*)/.venv/bin/python -m $(PACKAGE_$*) run $(OPTIONS)

peers-mlx: setup-mlx ## this project's step against public implementations: peers-mlx, peers-cuda, peers-ipex
peers-mlx peers-cuda peers-ipex: peers-%: setup-%
	@$(foreach e,$(PEERS_$*),$(MAKE) --no-print-directory $(FOLDER_$*)/benchmarks/.venv-$(e)/.done && )true
	@$(FOLDER_$*)/.venv/bin/python $(FOLDER_$*)/benchmarks/peers.py --out "$(RESULTS)/peers/$*.json" $(if $(DEVICE),--device $(DEVICE))

doctor: setup-$(PLATFORM) ## what is amiss on this machine, what will be null, and the command that mends it
	@$(FOLDER_$(PLATFORM))/.venv/bin/python -m $(PACKAGE_$(PLATFORM)) doctor --precision $(PRECISION) --out "$(RESULTS)" \
	  $(if $(DATA),--data "$(DATA)") $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

report: setup-aggregate ## compare all results: the answer here, report/ with tables and plots
	@aggregate/.venv/bin/python -m aggregate "$(RESULTS)" \
	  $(if $(MINE),$(if $(filter-out results,$(RESULTS)),results) --mine "$(MINE)")

readme: setup-aggregate ## what README.md and docs/ say of the committed results, made anew
	@aggregate/.venv/bin/python -m aggregate.readme

screenshot: setup-aggregate ## docs/report.png, the picture in README.md, of the report on results/ (needs chromium)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	aggregate/.venv/bin/python -m aggregate results/*.json --out "$$folder" --format json >/dev/null && \
	$(BROWSER) --headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars --user-data-dir="$$folder/profile" \
	  --window-size=1400,1560 --virtual-time-budget=5000 --screenshot="$(CURDIR)/docs/report.png" "file://$$folder/index.html" 2>/dev/null && \
	ls -l docs/report.png

test: setup ## all tests that can run on this system
	@for p in $(TESTABLE); do $(MAKE) --no-print-directory test-$$p || exit 1; done
	@$(if $(LEFT_OUT),,$(MAKE) --no-print-directory test-across)
	@$(if $(LEFT_OUT),echo "Left out (cannot be installed on $(SYSTEM)): $(LEFT_OUT)")

test-spec: setup-spec
	cd shared-spec && .venv/bin/python -m pytest
test-aggregate: setup-aggregate
	aggregate/.venv/bin/python -m pytest aggregate
test-mlx test-cuda test-ipex: test-%: setup-%
	cd $(FOLDER_$*) && .venv/bin/python -m pytest
test-across: setup-spec setup-mlx setup-cuda setup-ipex
	cd shared-spec && .venv/bin/python -m pytest tests/across_platforms.py

lint: setup ## ruff, mypy, and who may import whom (.importlinter)
	shared-spec/.venv/bin/ruff check .
	shared-spec/.venv/bin/ruff format --check .
	PYTHONPATH=shared-spec:bench-mlx:bench-tf-cuda:bench-torch-ipex:. shared-spec/.venv/bin/lint-imports --no-cache
	cd shared-spec && .venv/bin/mypy
	aggregate/.venv/bin/mypy --config-file aggregate/pyproject.toml aggregate
	@for p in $(foreach p,$(filter mlx cuda ipex,$(TESTABLE)),$(FOLDER_$(p))); do \
	  echo "mypy $$p"; (cd $$p && ../shared-spec/.venv/bin/mypy --python-executable .venv/bin/python) || exit 1; done

setup: ## all environments that can be made on this system, at once
	@$(MAKE) --no-print-directory -j$(words $(TESTABLE)) $(foreach p,$(TESTABLE),setup-$(p))

# Each environment is made by setup_env.py, which looks every time whether it is still what is asked for.
setup-spec setup-aggregate setup-mlx setup-cuda setup-ipex: setup-%:
	@$(PYTHON) shared-spec/setup_env.py $(FOLDER_$*) --extra "$(EXTRA_$*)" --lock requirements.lock \
	  $(foreach lock,$(LOCKS_$*),--lock $(lock)) \
	  $(foreach lock,$(wildcard $(FOLDER_$*)/requirements-nodeps.lock),--no-deps-lock $(notdir $(lock))) \
	  $(foreach word,$(PIP_$*),--pip=$(word)) $(foreach module,$(IMPORTS_$*),--imports $(module)) \
	  $(if $(filter-out file,$(origin PYTHON)),--chosen)

# $(1): platform word, $(2): environment. What a peer needs, and shared-spec and this folder to drive it.
define peers_environment
$(FOLDER_$(1))/benchmarks/.venv-$(2)/.done: $(FOLDER_$(1))/benchmarks/requirements-$(2).txt
	@echo "Setting up $(FOLDER_$(1))/benchmarks/.venv-$(2)"
	@$(PYTHON) -m venv --clear $$(@D)
	@$$(@D)/bin/pip install --quiet --disable-pip-version-check $(PIP_$(1)) -r $$< \
	  $(if $(filter $(2),timm),,$(foreach lock,$(LOCKS_$(1)),-r $(FOLDER_$(1))/$(lock)))
	@for alone in $(FOLDER_$(1))/benchmarks/no-deps-$(2).txt; do \
	  [ ! -e $$$$alone ] || $$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $$$$alone; done
	@$$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -e shared-spec
	@$$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -e $(FOLDER_$(1))
	@touch $$@
endef
$(foreach p,mlx cuda ipex,$(foreach e,$(PEERS_$(p)),$(eval $(call peers_environment,$(p),$(e)))))

clean: ## remove environments, caches and the report; results stay
	rm -rf */.venv */benchmarks/.venv-* report
	find . -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache -o -name .ruff_cache -o -name .hypothesis | xargs rm -rf
