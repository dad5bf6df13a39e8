# Every command of the docs. `make help` lists them.
PYTHON ?= python3
SPEC ?= evals/ticket_router/release.yaml
# Set-up leaves bytecode to the first import; a shell that forbids writing it would compile torch anew at every start (10 to 40 s each).
export PYTHONDONTWRITEBYTECODE :=
RUN := PYTHONPATH="$(CURDIR)" .venv/bin/python
.DEFAULT_GOAL := help

.PHONY: help setup lock release test fuzz lint format up down status schema clean bench bench-release bench-overhead bench-fit bench-gate bench-gate-suite pictures picture-gate bench-modelcar bench-signing bench-promotion picture-rollout bench-rollout bench-rollout-sim bench-rollout-long bench-delivery bench-coherence bench-gateway bench-adapters bench-rag bench-cluster bench-chaos bench-growth

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: ## Install everything into .venv and .toolchain (idempotent)
	@command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) is not on the PATH; install Python 3.11 or newer" >&2; exit 2; }
	@$(PYTHON) -m tasks.setup

lock: ## Write deploy/locks: the sha256 of every file that set-up may install; needs uv
	@$(PYTHON) -m tasks.lock

release: setup ## Dataset to champion: train, evaluate, gate, pack, canary, serve
	@$(RUN) -m flows.cli release $(SPEC)

test: setup ## Lint, types, import contracts and all tests
	@$(MAKE) --no-print-directory lint
	@$(RUN) -m pytest -m "not stack" --numprocesses 3 --dist loadfile --no-loadscope-reorder
	@$(RUN) -m pytest -m stack

fuzz: setup ## Give every command 500 inputs that nobody should give; INPUTS=50 for fewer
	@HOSTILE_INPUTS=$(or $(INPUTS),500) $(RUN) -m pytest --numprocesses 2 tests/test_flows_cli_hostile.py

lint: ## ruff, mypy and the import contracts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check -q .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache > .import-linter.log || { cat .import-linter.log; exit 1; }

format: ## Format the code
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format -q .

up: setup ## Start the local stack
	@$(RUN) -m flows.cli up

down: ## Stop the local stack
	@$(RUN) -m flows.cli down

status: ## Show the local stack
	@$(RUN) -m flows.cli status

schema: ## Write the JSON Schema of release.yaml for editors
	@$(RUN) -m flows.cli schema > evals/release.schema.json

bench: setup ## Run all benches and write docs/figures.md; BENCH="modelcar gate" for some, ARGS=--short for a look
	@$(RUN) -m tests.bench.run_benches $(BENCH) $(ARGS)

bench-release: setup ## Time of a release: installed, and with nothing changed; share of each stage
	@$(RUN) -m tests.bench.bench_release

bench-overhead: setup ## What orchestration costs a stage
	@$(RUN) -m tests.bench.bench_overhead

bench-fit: setup ## GPU-fit estimate against measured vLLM starts, beside other estimators
	@$(RUN) -m tests.bench.bench_fit

bench-gateway: setup ## What the gateway costs in front of an instant engine; wants a quiet machine
	@$(RUN) -m tests.bench.bench_gateway $(ARGS)

bench-adapters: setup ## 64 adapters on one vLLM against one, and the cliff past the slots; ARGS=--plot draws it
	@$(RUN) -m tests.bench.bench_adapters $(ARGS)

bench-modelcar: setup ## Build, push and pull of a 1 GiB model beside olot+skopeo and oras-py; wants a quiet machine
	@$(RUN) -m tests.bench.bench_modelcar $(ARGS)

bench-gate: setup ## Error rates, power and items of the sequential gate on simulated releases; ARGS=--short for a look
	@$(RUN) -m tests.bench.bench_gate $(ARGS)

bench-gate-suite: setup ## The gate in blocks on the real suite and engine, beside plain lm-eval on all items
	@$(RUN) -m tests.bench.bench_gate_suite $(ARGS)

pictures: setup ## Draw the pictures of docs/pictures.md; needs Chromium
	@$(RUN) -m tests.bench.pictures

picture-gate: setup ## Draw the picture of docs/eval-gate.md
	@$(RUN) -m tests.bench.gate_picture docs/images/eval-gate-paths.png

bench-signing: setup ## Signing and verifying a 1 GiB model against plain sha256
	@$(RUN) -m tests.bench.bench_signing $(ARGS)

bench-rollout-sim: setup ## False undos, missed regressions and requests until found, on simulated rollouts; ARGS=--short for a look
	@$(RUN) -m tests.bench.bench_rollout_sim $(ARGS)

picture-rollout: setup ## Draw the picture of docs/rollout-analysis.md
	@$(RUN) -m tests.bench.rollout_picture docs/images/rollout-evidence.png

bench-rollout: setup ## Ten good and ten bad releases through vLLM and Envoy under load, about 25 minutes; ARGS=--short for six
	@$(RUN) -m tests.bench.bench_rollout $(ARGS)

bench-rollout-long: setup ## 50 promotions and 50 undos under 100,000 requests with open streams, instant engines; ARGS=--short for a look
	@$(RUN) -m tests.bench.bench_rollout_long $(ARGS)

bench-rag: setup ## Ingest, recall, latency and QPS of the document index; ARGS="--peers PYTHON" for other stores beside it
	@$(RUN) -m tests.bench.bench_rag $(ARGS)

bench-promotion: setup ## 32 promoters, 1,000 moves, kills of promoters, MLflow and Postgres, against bare alias sets
	@$(RUN) -m tests.bench.bench_promotion $(ARGS)

bench-delivery: setup ## Ten releases and rollbacks by Argo CD and by server-side apply, others writing in between; ARGS=--short for two
	@$(RUN) -m tests.bench.bench_delivery $(ARGS)

bench-coherence: setup ## 1,000 manifests through `liftlock coherence`, at most 3 s
	@$(RUN) -m tests.bench.bench_coherence

bench-cluster: setup ## 500 random clusters and releases: the renderer's verdict against the real scheduler; ARGS=--short for a look
	@$(RUN) -m tests.bench.bench_cluster $(ARGS)

bench-growth: setup ## How time grows with items, bytes, passages, manifests and versions; ARGS=--short for a look, ARGS=--plot draws it
	@$(RUN) -m tests.bench.bench_growth $(ARGS)

bench-chaos: setup ## 100 releases, each with a kill, a full disk, a clock jump or a bad network; ARGS=--short for one of each
	@$(RUN) -m tests.bench.bench_chaos $(ARGS)

clean: down ## Stop the stack and remove its state (models and environments stay)
	@rm -rf .liftlock
