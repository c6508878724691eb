# scanbook: `make` lists what can be made. Written for GNU Make 3.81 (macOS) and later.

# study to run: a file of notebooks/studies, several (a,b,c), or all (default: synthetic, or folder when only DATA is given)
STUDY = $(if $(DATA),folder,synthetic)
# smoke, quick or full (default: SCANBOOK_PROFILE, else quick)
PROFILE =
# folder or file of the dataset, or kaggle to download it (default: its folder in data/, else a synthetic stand-in)
DATA =
# overrides of the study, such as SET="fine_tuning.epochs=3 image_size=128"
SET =
# notebooks or trials that run side by side (default: the number of make -j, else of processors)
JOBS = $(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1))
# command that starts each of them, such as LAUNCH="srun -n1" (default: SCANBOOK_LAUNCH, else none)
LAUNCH =
# interpreter to set up with (default: the first suitable one found)
PYTHON =
# folder of an exported model to serve (default: that of STUDY and PROFILE), or to validate
BUNDLE =
# port to serve on (default: SCANBOOK_PORT, else 8080)
PORT =
# name of a new notebook, such as NAME=10_my_question
NAME =
# runs to compare, such as RUNS="melanoma/quick melanoma/full"
RUNS =
# rows of the benchmark, such as ROWS=http,decode (default: all but streaming)
ROWS =
# --upgrade to lock the newest version of every dependency
UPGRADE =

SHELL = /bin/sh
# bytecode is kept in the environment: without it, TensorFlow's import takes twice as long, in every notebook
unexport PYTHONDONTWRITEBYTECODE
ENV = .venv
BIN = $(ENV)/bin
STAMP = $(ENV)/installed
SCANBOOK = $(BIN)/python -m scanbook.cli
WHICH = --study "$(STUDY)" --profile "$(PROFILE)"
# what the environment is made from; where it lies counts, since an environment cannot be moved
WANTED = { pwd; cat requirements.lock pyproject.toml; }
# settings of glibc's malloc for processes that compute, unless the user set others: those of runtime.processes.MALLOC
KEEP_MEMORY = export MALLOC_ARENA_MAX="$${MALLOC_ARENA_MAX:-1}" \
	MALLOC_MMAP_THRESHOLD_="$${MALLOC_MMAP_THRESHOLD_:-4294967296}" \
	MALLOC_TRIM_THRESHOLD_="$${MALLOC_TRIM_THRESHOLD_:-17179869184}" MALLOC_TOP_PAD_="$${MALLOC_TOP_PAD_:-268435456}"
# tests run with the smallest profile and folders of their own
OWN_FOLDERS = tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && trap 'exit 130' INT TERM && \
	export SCANBOOK_PROFILE=smoke SCANBOOK_REPORTS="$$tmp/reports" SCANBOOK_STORE="$$tmp/store" && $(KEEP_MEMORY)

.PHONY: help setup reports validate sweep compare status test check check-cluster bench lab new-notebook serve lint docs clean pretrain lock
.DEFAULT_GOAL = help

help: ## list what can be made
	@echo "make TARGET [VARIABLE=value …]"; echo; echo "Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile
	@echo; echo "Variables:"
	@awk '/^# / { text = substr($$0, 3) } /^[A-Z]+ =/ && text { printf "  %-10s %s\n", $$1, text; text = "" } /^SHELL/ { exit }' Makefile

setup: ## create the environment in .venv and install the lock, when either changed
	@$(WANTED) | cmp -s - $(STAMP) && test -x $(BIN)/python || { $(CREATE) && $(INSTALL) && $(WANTED) > $(STAMP); }

SUITS = suits() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
# an environment that was moved, or is of another Python, is created again; any other is brought up to date
CREATE = $(SUITS); python=; for name in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python); do \
		suits "$$name" && { python=$$name; break; }; \
	done; \
	test -n "$$python" || { echo "scanbook: no $(if $(PYTHON),suitable Python at $(PYTHON),Python 3.11 to 3.13 found); install one with its venv module, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	echo "Setting up $(ENV) with $$("$$python" --version); the first time takes some minutes."; \
	{ suits $(BIN)/python && { ! test -f $(STAMP) || test "$$(head -n 1 $(STAMP))" = "$$(pwd)"; }; } || "$$python" -m venv --clear $(ENV)

# pip knows settings that uv does not read (pip.conf), so it installs where uv is missing or fails
PIP = $(BIN)/python -m pip --disable-pip-version-check
INSTALL = { $(PIP) install --quiet "uv>=0.5" && \
		$(BIN)/python -m uv pip install --python $(BIN)/python -r requirements.lock && \
		$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps -e . || \
		{ $(PIP) install -r requirements.lock && $(PIP) install --quiet --no-deps -e .; }; }

# exec: what Ctrl-C and kill reach is the command, and no shell around it
reports: setup ## run every notebook whose report is stale, into reports/index.html
	@exec $(SCANBOOK) reports $(WHICH) --data "$(DATA)" --set "$(SET)" --jobs $(JOBS) $(if $(LAUNCH),--launch "$(LAUNCH)")

validate: setup ## run a bundle (BUNDLE=path) on the images of STUDY, or a study's model on the other source that it names
	@exec $(SCANBOOK) validate $(WHICH) --data "$(DATA)" --set "$(SET)" --bundle "$(BUNDLE)"

sweep: setup ## train a study's grid of backbones, policies and seeds, one run for each network
	@exec $(SCANBOOK) sweep $(WHICH) --data "$(DATA)" --set "$(SET)" --jobs $(JOBS) $(if $(LAUNCH),--launch "$(LAUNCH)")

compare: setup ## compare RUNS on one page: settings, figures, differences, curves
	@$(SCANBOOK) compare $(RUNS)

status: setup ## list which reports are fresh, stale (and why), failed or missing
	@$(SCANBOOK) status $(WHICH) --data "$(DATA)" --set "$(SET)"

test: setup ## unit tests, and every notebook in the smoke profile
	@$(OWN_FOLDERS) && $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --nbval-lax --nbval-current-env tests notebooks

check: setup ## slow tests: real data (SCANBOOK_REAL_DATA), every backbone, faults, load
	@$(OWN_FOLDERS) && $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow tests

check-cluster: setup ## training by several processes, sweeps, and studies on a real Slurm of two nodes on this machine
	@$(OWN_FOLDERS) && $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m cluster tests

bench: setup ## compare scanbook with the usual practice, on an otherwise idle machine, into reports/bench
	@$(BIN)/python -m benchmarks --rows "$(ROWS)" --data "$(DATA)"

# the environment's kernel is looked up before any python3 that the user has
lab: setup ## open the notebooks in JupyterLab
	@$(BIN)/python -m ipykernel install --sys-prefix >/dev/null && $(KEEP_MEMORY) && \
	JUPYTER_PATH="$(CURDIR)/$(ENV)/share/jupyter:$$JUPYTER_PATH" exec $(BIN)/python -m jupyterlab notebooks

new-notebook: setup ## write a notebook to go on from, such as NAME=10_my_question
	@$(SCANBOOK) new-notebook "$(NAME)"

serve: setup ## serve an exported model at http://127.0.0.1:8080
	@$(SCANBOOK) serve $(if $(BUNDLE),"$(BUNDLE)",$(WHICH)) $(if $(PORT),--port $(PORT))

lint: setup ## check style, and the notebooks against their contract
	@$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check . && $(SCANBOOK) lint

# the variable turns off the theme's notice of its successor
docs: setup ## build the documentation into build/docs/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## remove reports and the store of cached stages; the environment and downloads stay
	rm -rf reports data/store .pytest_cache .ruff_cache .hypothesis

pretrain: setup ## train the weights that come with scanbook again
	@$(BIN)/python -m tools.pretrain

lock: setup ## write requirements.lock from pyproject.toml; versions stay where they still fit
	@$(BIN)/python -m uv pip compile $(UPGRADE) --quiet --universal --python-version 3.11 --all-extras --no-header pyproject.toml -o requirements.lock
