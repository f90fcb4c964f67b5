# Every target sets up what it needs: .venv, packages, services, database.
# PYTHON=… chooses the interpreter, else the newest working one of 3.11 to 3.13.

PY := .venv/bin/python
PORT ?= 8000
WEB ?= 2
WORKERS ?= 1
SERVER ?= uvicorn
ARGS ?=
SETUP := PYTHON='$(PYTHON)' .ci/setup
RUNTIME := requirements.txt requirements-local-model.txt
# A part of the tests covers a part of the code: the bound is for the whole suite, which takes long.
WHOLE := $(if $(ARGS),,-n 3 --dist loadfile --no-loadscope-reorder --cov --cov-fail-under=85)

.DEFAULT_GOAL := help
.PHONY: help demo run serve test check perf clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: ## evaluate two versions of a prompt on the local model, in the terminal
	@$(SETUP) $(RUNTIME)
	@$(PY) manage.py demo

run: ## web and executor in one process on SQLite (PORT=8000)
	@$(SETUP) $(RUNTIME)
	@$(PY) manage.py run_server --port $(PORT)

serve: ## production shape with PostgreSQL and Valkey (PORT=8000 WEB=2 WORKERS=1 SERVER=uvicorn|daphne)
	@$(SETUP) $(RUNTIME) requirements-services.txt
	@$(PY) manage.py serve --port $(PORT) --web $(WEB) --workers $(WORKERS) --server $(SERVER)

test: ## the whole suite against real PostgreSQL and Valkey (ARGS="tests/prompts -x" for a part)
	@$(SETUP) $(RUNTIME) requirements-services.txt requirements-dev.txt
	@$(PY) manage.py with_services --fresh -- $(PY) -m pytest $(WHOLE) $(ARGS)

check: ## lint, format, types, architecture, migrations, production settings
	@$(SETUP) $(RUNTIME) requirements-services.txt requirements-dev.txt
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy .
	.venv/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run
	@echo "manage.py check --deploy"
	@DEBUG=0 ALLOWED_HOSTS=example.com SECRET_KEY="$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(64))')" \
		$(PY) manage.py check --deploy --fail-level WARNING

perf: ## measure everything against a fresh installation (ARGS=--quick for little load)
	@$(SETUP) $(RUNTIME) requirements-services.txt
	@$(PY) manage.py perf all --fresh --json "var/perf/$$(date +%Y%m%d-%H%M%S).json" $(ARGS)

clean: ## remove .venv and what tools left; var/ with your data stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks htmlcov .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Removed .venv and caches; var/ was kept"
