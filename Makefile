# Every task of the project. CI calls these targets and nothing else.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
UV := $(RUN)uv pip install --quiet --python $(VENV)/bin/python
RUST_FILES := $(shell find rust -name '*.rs' -not -path '*/fuzz/*') Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml)
SIZE ?=
FUZZ := rust/core/fuzz
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint fmt check bench fuzz build clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: build ## Load and save a real model, compare, kill saves (SIZE=2GB adds a generated checkpoint).
	$(RUN)python examples/demo.py $(if $(SIZE),--size $(SIZE))

test: build ## Run every test.
	cargo test --quiet --package windlass-core --all-features
	$(RUN)python -m pytest --quiet

test-long: build ## Run every test with many more generated inputs.
	PROPTEST_CASES=20000 cargo test --release --quiet --package windlass-core --all-features
	WINDLASS_TEST_PROFILE=long $(RUN)python -m pytest --quiet --timeout 3600

lint: build ## Check format, types, stubs and lints; change nothing.
	cargo fmt --all --check
	cargo fmt --manifest-path $(FUZZ)/Cargo.toml --check
	cargo clippy --quiet --workspace --all-targets --all-features -- --deny warnings
	cargo clippy --quiet --package windlass-core -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --quiet --package windlass-core --all-features --no-deps
	$(RUN)ruff format --check --quiet
	$(RUN)ruff check --quiet
	$(RUN)mypy
	$(RUN)python -m mypy.stubtest windlass._rust --allowlist stubtest-allowlist.txt --ignore-unused-allowlist

fmt: $(VENV)/ready ## Format everything.
	cargo fmt --all
	$(RUN)ruff format
	$(RUN)ruff check --fix

check: lint test ## What has to pass before a commit.

bench: build ## Measure against the competitors (ARGS="--quick" for a look, see benches/README.md).
	$(RUN)python benches/run.py $(ARGS)

fuzz: ## Fuzz the parsers against the reference for FUZZ_SECONDS each (needs cargo-fuzz).
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz"; exit 1; }
	for target in header index; do \
	  mkdir -p $(FUZZ)/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target --fuzz-dir $(FUZZ) $(FUZZ)/corpus/$$target $(FUZZ)/seeds/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS) -dict=$(FUZZ)/$$target.dict || exit 1; \
	done

build: $(VENV)/built ## Compile the engine and install the package, editable, into .venv.

clean: ## Remove everything that was built.
	rm -rf $(VENV) target

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("windlass needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --disable-pip-version-check uv
	$(UV) --group dev
	@touch $@

$(VENV)/built: $(VENV)/ready $(RUST_FILES)
	@command -v cargo >/dev/null || { echo "windlass is built with Rust 1.89 or newer: install it from https://www.rust-lang.org/tools/install and run make again"; exit 1; }
	$(RUN)maturin develop --quiet --release --uv
	@touch $@
