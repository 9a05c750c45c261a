# Every door of the project; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --no-compile -c constraints.txt
DEMO := docs/examples/demo.yaml
DEMO_ON_DATA = $(if $(DATA),--set data.root=$(DATA) --set output=runs/demo-data --set evaluation.tasks=[classification])

.DEFAULT_GOAL := help
.PHONY: help setup demo test e2e image check lint types arch generate verify-generated golden bench clean

help: ## list the doors
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/' | sort

setup: $(STAMP) ## make .venv with everything (2 to 4 minutes on a fresh machine)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0 setuptools wheel ninja py-cpuinfo
	$(MAKE) --no-print-directory -j2 $(VENV)/.libraries $(VENV)/.deepspeed
	$(INSTALL) --no-deps --no-build-isolation --find-links $(VENV)/wheels deepspeed -e . && $(PIP) check
	$(BIN)/python -c 'import deepspeed.ops.comm.deepspeed_shm_comm_op' >/dev/null
	touch $@

# Everything is pinned, so nothing is resolved; the extension of DeepSpeed compiles meanwhile.
$(VENV)/.libraries: constraints.txt
	grep -v '^deepspeed==' constraints.txt > $@.txt && $(INSTALL) --no-deps -r $@.txt && touch $@

$(VENV)/.deepspeed: constraints.txt
	DS_ACCELERATOR=cpu DS_BUILD_SHM_COMM=1 $(PIP) wheel --no-cache-dir --no-build-isolation --no-deps \
	  --no-binary deepspeed -w $(VENV)/wheels $$(grep '^deepspeed==' constraints.txt) && touch $@

demo: $(STAMP) ## raw text to a served model on one machine; DATA=folder takes real data
	$(BIN)/fsb run $(DEMO) $(DEMO_ON_DATA) $(ARGS)

test: $(STAMP) ## all tests that need no cluster
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

e2e: $(STAMP) ## end-to-end tests on the cluster of KUBECONFIG; PREFIX, TAG of the images, LOAD=their loader
	[ -z "$(LOAD)" ] || { ARCHIVE=$(CURDIR)/dist/images PREFIX=$(PREFIX) TAG=$(TAG) images/build all && \
	  for file in dist/images/*.tar; do $(LOAD) $$file || exit 1; done; }
	FSB_E2E_IMAGE_PREFIX=$(PREFIX) FSB_E2E_IMAGE_TAG=$(TAG) $(BIN)/python -m pytest tests/e2e $(ARGS)

image: ## build stage images; STAGE=data|train|eval|serving|operator|all VARIANT=cpu|gpu BUILDER=docker|buildah PREFIX TAG
	$(foreach name,VARIANT BUILDER PREFIX TAG,$(if $($(name)),$(name)=$($(name)))) images/build $(or $(STAGE),all)

check: $(STAMP) lint types arch ## style, types, layers and sizes, under 90 seconds

lint: $(STAMP)
	$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

arch: $(STAMP)
	$(BIN)/lint-imports --no-cache && $(BIN)/python -m pytest -q tests/unit/test_house.py

generate: $(STAMP) ## remake generated files: schemas, samples, compiled pipelines
	$(BIN)/python -m tests.helpers.generate --write

verify-generated: $(STAMP) ## compare generated files with their sources
	$(BIN)/python -m tests.helpers.generate

golden: $(STAMP) ## rewrite golden files; say why in the commit
	$(BIN)/python -m pytest --update-golden tests/unit

bench: $(STAMP) ## measurements, with the peers beside them
	$(BIN)/python -m tests.bench $(ARGS)

clean: ## remove runs and caches, keep .venv
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
