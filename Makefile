# Everything a person or a machine does with this tree. `make help` lists it.

export PATH := $(HOME)/.cargo/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help build install demo test fuzz bench simulate clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the daemon and the command line
	@scripts/deps.sh demo
	cargo build --release --locked -p dormouse-daemon -p dormouse-cli

install: ## install it, its systemd unit and the example responder (as root; DESTDIR=dir for packages)
	@scripts/install.sh

demo: ## watch a guest sleep, stay present and wake (as root); KEEP=1 leaves the lab up, LIBVIRT=1 takes a domain
	@scripts/demo.sh $(if $(filter-out 0,$(KEEP)),--keep) $(if $(filter-out 0,$(LIBVIRT)),--libvirt)

test: ## format, lints, licences, unit, property and end-to-end tests (as root)
	@scripts/test.sh

fuzz: ## run each fuzz target for 5 minutes, or for SECONDS=n
	@scripts/fuzz.sh $(SECONDS)

bench: ## measure, beside plain QEMU and libvirt (as root)
	@scripts/bench.sh

simulate: ## measure the policies on TRACE='a.csv b.csv', and write docs/policies.md and its pictures anew
	@scripts/policies.sh $(TRACE)

clean: ## remove what was built, and what labs left behind; the guest image stays in its cache
	@scripts/sweep.sh --kept
	cargo clean
