# `make demo` and `make test` work on a fresh machine with git, make and Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
QUICK ?=

.PHONY: setup demo test check test-deps chaos bench bench-buffer bench-history screenshots constraints model clean

setup: .venv.stamp

.venv.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Plantward needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[edge,cloud,dev]'
	@touch $@

demo: setup               ## the whole plant and a local cloud, on loopback
	$(BIN)/plantward demo $(ARGS)

test: setup               ## all tests that this machine can run; says what it skipped and why
	$(BIN)/pytest $(ARGS)

check: setup              ## format, lint, types, import floors, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

test-deps:                ## what the rest of the tests need: Debian packages, and where npm is, an AMQP client and blob storage
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium faketime fonts-liberation mosquitto mosquitto-clients python3-venv >/dev/null
	if command -v npm >/dev/null; then for peer in rhea azurite; do npm install --prefix tests/peers/$$peer --no-audit --no-fund --no-package-lock; done; fi

chaos: setup              ## outages of every kind for an hour or two: a table, and build/chaos.json; ARGS='--seed 7 --only killed'
	PYTHONPATH=tests $(BIN)/python tests/chaos/run.py $(ARGS)

bench: setup              ## a table, and build/bench/journey.json
	$(BIN)/python tests/bench/journey.py $(if $(QUICK),--quick)

bench-buffer: setup       ## the log beside raw SQLite, and its drain: tables, and build/bench/buffer.json
	$(BIN)/python tests/bench/buffer.py $(if $(QUICK),--quick)
	$(BIN)/python tests/bench/drain.py $(if $(QUICK),--quick)

bench-history: setup      ## long trends: server time, readings/s, bytes; and build/bench/history.json
	$(BIN)/python tests/bench/history.py $(if $(QUICK),--quick)

screenshots: setup        ## the pictures in docs/images, from a running demo
	$(BIN)/python docs/screenshots.py

model: setup              ## train the model that comes with Plantward
	$(BIN)/plantward-cloud train --out appliance/inference/models/plantward-demo.onnx --seed 0

constraints:              ## pin what is installed now
	$(BIN)/python -m pip freeze --exclude-editable | grep -v ' @ ' > constraints.txt

clean:
	rm -rf build dist .venv .venv.stamp
