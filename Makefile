# Switchyard. Needed: git, make and Python 3.11 or newer; everything else goes into .venv.

PYTHON ?= python3
SETTINGS ?= config.settings.development
VENV := .venv/bin
LEVELS := installer runtime dev

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run test proof bench conformance check requirements environment environment-dev environment-tools clean

help: ## Show what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: environment ## Start everything on http://localhost:8000 (PORT=…, HOST=…)
	@DJANGO_SETTINGS_MODULE=$(SETTINGS) exec $(VENV)/python manage.py serve

test: environment-dev ## Run the whole suite, on SQLite and on real PostgreSQL + Redis (ARGS="tests/audit -k chain")
	@exec $(VENV)/python scripts/run_tests.py $(ARGS)

proof: environment-dev ## Run the proofs at full scale and write benchmarks/PROOF.md
	@exec $(VENV)/python -m benchmarks.proof $(ARGS)

bench: environment-dev ## Measure speed and write benchmarks/RESULTS.md (PEERS=1 runs other gateways beside it)
	@exec $(VENV)/python -m benchmarks.run $(ARGS)

conformance: environment-dev ## Run the official MCP conformance suite through the gateway
	@exec $(VENV)/python -m tests.conformance.run $(ARGS)

check: environment-dev ## Run the static checks
	@exec $(VENV)/python scripts/check.py

requirements: environment-tools ## Resolve requirements/*.in again and write the versions and hashes
	@for level in $(LEVELS); do $(VENV)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
	  requirements/$$level.in -o requirements/$$level.txt || exit 1; echo "requirements/$$level.txt"; done

clean: ## Remove .venv and caches; var/ with its data stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis static/collected
	@find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

environment environment-dev environment-tools:
	@command -v $(PYTHON) >/dev/null || { echo "switchyard: $(PYTHON) is not installed; Python 3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) scripts/bootstrap.py $(if $(filter environment-dev,$@),--dev)$(if $(filter environment-tools,$@),--installer)
