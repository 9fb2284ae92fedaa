# The two commands a stranger needs are `make demo` and `make test`. Both install what they need under target/.

SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
.DEFAULT_GOAL := help
.PHONY: help demo test bench world crds lint programs

help: ## Show this.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

# Cargo leaves a core idle now and then, and waits for downloads; the first time Go compiles Kubernetes meanwhile. It is stopped
# when cargo has done: the world goes on from there, and says how it gets on and what is wrong.
programs:
	@echo "Building Campanile and the test world (some minutes the first time) …"
	@kubernetes=; scratch=$$(mktemp -d); trap '[ -z "$$kubernetes" ] || kill $$kubernetes 2>/dev/null; rm -rf $$scratch' EXIT; \
	if [ -z "$$KUBEBUILDER_ASSETS" ] && ! ls $(TARGET)/world/kubernetes-*/.complete >/dev/null 2>&1; then \
		GOTMPDIR=$$scratch tests/world/cluster/build.sh >/dev/null 2>&1 & kubernetes=$$!; \
	fi; \
	cargo build --workspace --bins

demo: programs ## Build everything, start the test world, and watch an alarm fire and reach a pager and Slack. ONCE=1 ends by itself.
	@ONCE=$(ONCE) $(TARGET)/debug/demo

test: ## Run all tests; the last line is "N passed, N failed, N skipped".
	@python3 tests/summary.py cargo test --workspace --no-fail-fast

bench: ## Measure costs and speed in the test world; a table in about 4 minutes. PROFILE=release optimizes (builds anew).
	@cargo bench --quiet --profile $(or $(PROFILE),dev) --bench bench

world: programs ## Start the test world, say how to reach it, and keep it up until Ctrl-C.
	@$(TARGET)/debug/world

crds: ## Write crds/ anew from the code.
	@cargo run --quiet -- crds > $(TARGET)/campanile-crds.yaml
	@mv $(TARGET)/campanile-crds.yaml crds/campanile.yaml

lint: ## Formatting and lints, as CI does.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

