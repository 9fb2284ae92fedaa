# The two commands a stranger needs are `make demo` and `make test`. Both install what they need under target/.

SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
.DEFAULT_GOAL := help
.PHONY: help demo test bench world crds lint

help: ## Show this.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## Build everything, start the test world, and watch an alarm fire and reach a pager and Slack. ONCE=1 ends by itself.
	@echo "Building Campanile and the test world (some minutes the first time) …"
	@cargo build --workspace --bins
	@ONCE=$(ONCE) $(TARGET)/debug/demo

test: ## Run all tests; the last line is "N passed, N failed, N skipped".
	@python3 tests/summary.py cargo test --workspace --no-fail-fast

bench: ## Measure costs and speed in the test world; a table in about 4 minutes. PROFILE=release optimizes (builds anew).
	@cargo bench --quiet --profile $(or $(PROFILE),dev) --bench bench

world: ## Start the test world, say how to reach it, and keep it up until Ctrl-C.
	@cargo build --workspace --bins
	@$(TARGET)/debug/world

crds: ## Write crds/ anew from the code.
	@cargo run --quiet -- crds > $(TARGET)/campanile-crds.yaml
	@mv $(TARGET)/campanile-crds.yaml crds/campanile.yaml

lint: ## Formatting and lints, as CI does.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

