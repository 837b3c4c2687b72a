# Signet. `make help` lists the targets.

SHELL       := /bin/bash
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME    ?= 10s
BENCHTIME   ?= 1s
SIZES       ?= 10000,100000,1000000
PROFILES    ?= var/profiles
export CGO_ENABLED = 1

.DEFAULT_GOAL := help
.PHONY: help run build test interop lint bench bench-quick bench-all bench-revocation bench-overload bench-scale profile fuzz generate clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## install what is missing, build, and serve on 127.0.0.1:8000 (settings: SIGNET_... variables)
	@scripts/setup run
	@$(MAKE) --no-print-directory build
	@exec bin/signet serve

build: ## bin/signet
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/signet ./cmd/signet

test: ## install what is missing, and run every test with the race detector
	@scripts/setup test
	go vet -race ./...
	go test -race -p 1 -timeout 20m ./...

interop: ## the tests with tokens of every make (a part of make test); fails where one of them cannot run
	@scripts/setup interop
	SIGNET_INTEROP=1 go test -count 1 -run '^TestInterop' ./keystore/... ./cmd/signet

lint: ## gofmt and go vet
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w $$unformatted"; exit 1; fi
	go vet ./...

bench: ## what issuance costs, by the token, the databases and a minimal service: one table (8 minutes, docs/performance.md)
	@scripts/setup test
	@go test -run '^$$' -bench '^BenchmarkIssuance$$' -benchtime 1x -timeout 20m ./cmd/signet

bench-quick: ## of it, a P-256 CA on PostgreSQL with 1 and 32 clients (1 minute)
	@scripts/setup test
	@SIGNET_BENCH=quick go test -run '^$$' -bench '^BenchmarkIssuance$$' -benchtime 1x ./cmd/signet

bench-all: ## every benchmark (BENCHTIME=1s)
	@scripts/setup test
	go test -run '^$$' -bench . -benchtime $(BENCHTIME) -benchmem -timeout 2h ./...

profile: ## profiles of a server that signs, for go tool pprof, in PROFILES (1 minute)
	@SIGNET_TEST_PROFILES=$(abspath $(PROFILES)) go test -run '^$$' -bench '^BenchmarkProfile$$' -benchtime 1x ./cmd/signet
	@find $(PROFILES) -name '*.pprof'

bench-revocation: ## a CA with 10k, 100k and 1M revoked certificates on PostgreSQL, and anonymous traffic (some minutes)
	@scripts/setup test
	go test -run '^$$' -bench '^BenchmarkRevocation$$' -benchtime 50x -timeout 1h ./cmd/signet
	go test -run '^$$' -bench '^BenchmarkRevocationAnonymous$$' -benchtime 5000x ./cmd/signet
	go test -run '^$$' -bench '^BenchmarkFleet$$' -benchtime 2s -count 5 ./api

bench-overload: ## goodput and revocation when twice as much is asked as can be done (2 minutes)
	@scripts/setup test
	go test -run '^$$' -bench '^BenchmarkOverload$$' -benchtime 3x ./cmd/signet

bench-scale: ## PostgreSQL with 10k, 100k and 1M certificates: issuance, lists, searches (SIZES=10000,100000; some minutes)
	@scripts/setup test
	SIGNET_TEST_SCALE=$(SIZES) go test -run '^$$' -bench '^BenchmarkScale$$' -benchtime 1x -timeout 20m ./cmd/signet

fuzz: ## every fuzz target for a while (FUZZTIME=10s)
	@set -e; for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package; \
		done; \
	done

generate: ## what is generated: API code, docs/configuration.md
	go generate ./...

clean: ## remove what was built; the data folder stays
	rm -rf bin
