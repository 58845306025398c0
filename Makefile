# The verbs of this project; `make` prints them. Works with GNU make 3.81 (macOS) and later.
# Everything runs in .venv, which is made from the locked requirements when they are newer than it.

SHELL = /bin/sh
.DEFAULT_GOAL = help
PYTHON ?=
SEEDS ?= 1
bin := .venv/bin
stamp := .venv/.made
# make deletes the target of an interrupted recipe. That is how `crossfill up` learns of a SIGINT or
# SIGHUP that was sent to make alone: its target is a file, named after this make's process.
running := .venv/.running-$(shell echo $$PPID)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: always help run live test check chaos format bench lock clean

help: ## print this menu
	@echo "make VERB, where VERB is one of"; echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r verb what; do printf '%-10s %s\n' "$$verb" "$$what"; done
	@echo; echo "ARGS=... is handed to what run, live, test, chaos and bench call, as in: make run ARGS='--replay PATH --loop'"

run: $(running) ## run everything on this machine, against a simulated market

live: market := --live
live: $(running) ## the same against the real exchanges; orders stay on paper

# Those that load the machine themselves run alone, after the others and whatever came of them; with ARGS all run in one go.
test: $(stamp) ## run the tests
ifeq ($(strip $(ARGS)),)
	@failed=; \
	$(bin)/python -m pytest -n 2 --dist loadfile tests --ignore tests/e2e --ignore tests/chaos || failed=1; \
	$(bin)/python -m pytest tests/e2e tests/chaos || failed=1; \
	test -z "$$failed"
else
	@$(bin)/python -m pytest tests $(ARGS)
endif

check: $(stamp) ## lint, formatting, types, import contracts
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy
	@$(bin)/lint-imports

chaos: $(stamp) ## kill, stop and cut off everything under load, on both databases (SEEDS=30 for the night)
	@$(bin)/python -m tests.chaos --seeds $(SEEDS) $(ARGS)

format: $(stamp) ## format the code and mend what can be mended
	@$(bin)/ruff format .
	@$(bin)/ruff check --fix .

bench: $(stamp) ## measure, as in docs/benchmarks.md
	@$(bin)/python -m benchmarks $(ARGS)

lock: $(stamp) ## lock the requirements anew (needs a package index)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(bin)/python -m venv "$$folder" && \
	"$$folder/bin/pip" install --quiet uv && \
	"$$folder/bin/uv" pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet --output-file requirements.txt && \
	"$$folder/bin/uv" pip compile pyproject.toml --constraints requirements.txt --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet --output-file deploy/requirements.txt

clean: ## remove the environment and the caches; the state folder stays
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(running): $(stamp) always
	@touch $@ && CROSSFILL_UNDER_MAKE=$(CURDIR)/$@ exec $(bin)/python -m cli up $(market) $(ARGS)

$(stamp): requirements.txt pyproject.toml
	@set -e; found=; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Crossfill needs Python 3.11 or later, and this machine has none: install one, or name it: make run PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$found cannot make environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; \
	fi; \
	echo "making the environment .venv with $$("$$found" --version), once; this takes a minute or two"; \
	$(bin)/python -c '' 2>/dev/null || "$$found" -m venv --clear .venv; \
	$(bin)/python -m pip install --quiet --require-hashes --requirement requirements.txt; \
	$(bin)/python -m pip install --quiet --no-deps --no-build-isolation --editable .; \
	touch $@
