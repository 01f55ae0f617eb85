# The only entry point. `make demo` and `make test` are all that a newcomer needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PROGRAMS = isonomy isonomy-bench
.PHONY: help install demo test lint verify oldest deny fix bench bench-steps sim model soak fuzz chaos partitions publishers

CARGO ?= cargo
# Where `make install` puts the programs: PREFIX/bin; a package is built below DESTDIR
PREFIX ?= /usr/local
DESTDIR ?=
# More arguments for the demo: make demo ARGS="--seconds 30"
ARGS ?=
# The simulator's first seed and how many: make sim SEED=7 COUNT=1
SEED ?= 0
COUNT ?= 1000
# How many states of a model are generated
STATES ?= 10000000
# How long a kill loop or a fuzzer runs
SECONDS ?= 300
# libFuzzer's coverage, as the stable compiler gives it
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
SIM = $(CARGO) run --release --locked -q -p isonomy-sim -- --replay engine/sim/seeds.txt

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

demo: ## Build, start three replicas on this machine, load them and check that they agree
	$(CARGO) build --release --locked -p isonomy -p isonomy-bench
	target/release/isonomy demo $(ARGS)

install: ## Build, and put isonomy and isonomy-bench into PREFIX/bin (PREFIX=/usr/local)
	$(CARGO) build --release --locked $(PROGRAMS:%=-p %)
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(PROGRAMS:%=target/release/%) "$(DESTDIR)$(PREFIX)/bin"

test: ## All tests; says at the end how many ran
	.ci/tests

lint: ## Format, lints, edges and documentation, without changing a file
	$(CARGO) fmt --all --check
	for package in engine/fuzz engine/control/tonic-prost-build; do (cd $$package && $(CARGO) fmt --check); done
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	.ci/edges
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --locked

verify: lint ## Everything that must hold, without changing a file: lint, tests, 10,000 simulated seeds
	.ci/tests
	$(SIM) --count 10000 --time 600

oldest: ## Build with the oldest toolchain that Cargo.toml promises; rustup fetches it
	version=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); rustup toolchain install $$version --profile minimal; \
		cargo +$$version check --workspace --all-targets --all-features --locked --target-dir target/oldest

deny: ## Licences, sources and known vulnerabilities of what is built in; needs cargo-deny and the network
	cargo deny --all-features --locked check

sim: ## Simulated clusters: seeds SEED to SEED+COUNT-1, until one fails
	$(SIM) --seed $(SEED) --count $(COUNT) $(ARGS)

model: ## Every schedule of small clusters, or STATES of them where there are more
	ISONOMY_MODEL_STATES=$(STATES) $(CARGO) test --locked -p isonomy-protocol --all-features --test model -- --nocapture

soak: ## The same with seeds that nobody has seen, for an hour
	$(SIM) --seed $$(date +%s)000000 --count 1000000000 --time 3600 $(ARGS)

chaos: ## Real replicas are killed and paused for SECONDS under load; what the clients were told is judged
	ISONOMY_CHAOS_SECONDS=$(SECONDS) $(CARGO) test --release --locked -p isonomy --test chaos -- --nocapture

partitions: ## Real replicas are cut off for 15, 65 and 110 s, as root; says when they decide again
	for cut in 15 65 110; do ISONOMY_CUT_SECONDS=$$cut $(CARGO) test --release --locked -p isonomy --test partition \
		-- --nocapture; done

publishers: ## Publishers are killed and paused at each step of a transaction for SECONDS, twice; all that Kafka has is checked
	ISONOMY_PUBLISH_SECONDS=$(SECONDS) $(CARGO) test --release --locked -p isonomy-kafka --features failpoints --test killed
	ISONOMY_PUBLISH_SECONDS=$(SECONDS) $(CARGO) test --release --locked -p isonomy --features failpoints --test publish \
		-- --nocapture at_any_step

fix: ## Format, and apply what clippy can
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --all-features --fix --allow-dirty --allow-staged

bench: ## The canonical load on three replicas; appends a line with the commit to target/bench.jsonl
	$(CARGO) build --release --locked -p isonomy -p isonomy-bench
	target/release/isonomy-bench canonical --append target/bench.jsonl \
		$(if $(wildcard target/probe.json),--probe target/probe.json) $(ARGS)

bench-steps: ## Micro-benchmarks of the hot path's steps
	$(CARGO) bench --locked -p isonomy-bench

fuzz: ## Damages a log and a snapshot on purpose, SECONDS each, guided by what the readers' code does
	cd engine/fuzz && for target in log snapshot; do \
		RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) run --release --locked -q --target-dir ../../target/fuzz \
			--target "$$(rustc -vV | sed -n 's/^host: //p')" --bin $$target -- \
			-artifact_prefix=../../target/fuzz/ -max_total_time=$(SECONDS); done
