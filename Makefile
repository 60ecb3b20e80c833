# Every task of the project. CI calls these targets and nothing else.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/
UV := $(RUN)uv pip install --quiet --python $(VENV)/bin/python
RUST_FILES := $(shell find rust -name '*.rs' -not -path '*/fuzz/*') Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml)
SIZE ?=
ORACLE := .venv-oracle
FUZZ := rust/core/fuzz
FUZZ_SECONDS ?= 60
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
RUNNER = CARGO_TARGET_$(shell echo $(HOST) | tr 'a-z-' 'A-Z_')_RUNNER
VALGRIND := valgrind --quiet --error-exitcode=1
UNSAFE_ROOMS := sys:: convert:: read:: --skip what_was_read_is_resident # valgrind knows no cachestat.

.DEFAULT_GOAL := help
.PHONY: help demo test test-long oracle lint fmt check bench bench-rivals bench-page fuzz sanitize build clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: build ## Load and save a real model, compare, kill saves (SIZE=2GB adds a generated checkpoint).
	$(RUN)python examples/demo.py $(if $(SIZE),--size $(SIZE))

test: build oracle ## Run every test.
	cargo test --quiet --package windlass-core --all-features
	$(RUN)python -m pytest --quiet

test-long: build oracle ## Run every test with many more generated inputs.
	PROPTEST_CASES=20000 cargo test --release --quiet --package windlass-core --all-features
	WINDLASS_TEST_PROFILE=long $(RUN)python -m pytest --quiet --timeout 3600

oracle: $(ORACLE)/ready ## Make .venv-oracle: transformers 4.46.3, which tests compare with.

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

bench: build ## Measure against the competitors, rebuild benches/RESULTS.md (ARGS="--quick" for a look, see benches/README.md).
	@test $(VENV)-rivals/ready -nt pyproject.toml || $(MAKE) bench-rivals || echo "Who is missing is reported as failed."
	$(RUN)python benches/run.py --page $(ARGS)

bench-rivals: $(VENV)/ready ## Install the competitors that windlass does not need, into .venv-rivals.
	$(RUN)python benches/install_rivals.py
	@touch $(VENV)-rivals/ready

bench-page: $(VENV)/ready ## Rebuild benches/RESULTS.md and its pictures from benches/results.jsonl (RESULTS="FILE…" adds runs).
	$(RUN)python benches/page.py $(RESULTS)

fuzz: ## Fuzz the parsers against the reference for FUZZ_SECONDS each (needs cargo-fuzz).
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz"; exit 1; }
	for target in header index; do \
	  mkdir -p $(FUZZ)/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target --fuzz-dir $(FUZZ) $(FUZZ)/corpus/$$target $(FUZZ)/seeds/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS) -dict=$(FUZZ)/$$target.dict || exit 1; \
	done

sanitize: ## Run the core's tests under AddressSanitizer and, where there is valgrind, those of the unsafe rooms under it.
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --quiet --package windlass-core --all-features \
	  --lib --tests --target $(HOST) --target-dir target/sanitize
	@if command -v valgrind >/dev/null; then \
	  set -x; $(RUNNER)="$(VALGRIND)" cargo test --quiet --package windlass-core --all-features \
	    --lib --target $(HOST) --target-dir target/valgrind -- $(UNSAFE_ROOMS); \
	else echo "make sanitize: valgrind is missing (apt-get install valgrind): its part is left out"; fi

build: $(VENV)/built ## Compile the engine and install the package, editable, into .venv.

clean: ## Remove everything that was built.
	rm -rf $(VENV) $(VENV)-rivals $(ORACLE) target

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("windlass needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --disable-pip-version-check uv
	$(UV) --group dev
	@touch $@

$(ORACLE)/ready: tests/oracle/requirements.txt | $(VENV)/ready
	$(RUN)uv venv --quiet --clear --python $(VENV)/bin/python $(ORACLE)
	$(RUN)uv pip install --quiet --python $(ORACLE)/bin/python "$$(grep -o 'torch==[0-9.]*' pyproject.toml)"
	$(RUN)uv pip install --quiet --python $(ORACLE)/bin/python --no-deps --requirements $<
	@touch $@

$(VENV)/built: $(VENV)/ready $(RUST_FILES)
	@command -v cargo >/dev/null || { echo "windlass is built with Rust 1.89 or newer: install it from https://www.rust-lang.org/tools/install and run make again"; exit 1; }
	$(RUN)maturin develop --quiet --release --uv
	@touch $@
