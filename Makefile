# The two commands of the README, and what they stand on.
.PHONY: help setup setup-xdp setup-lab demo test test-long lint unit guest clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: ## .venv with .venv/bin/flowfast
	@deploy/setup.sh run

setup-xdp: ## and the XDP program that steers SAs to CPUs, compiled (installs clang)
	@deploy/setup.sh xdp

setup-lab:
	@deploy/setup.sh lab

demo: setup-lab ## real IPsec on a real kernel, full path against fast path
	@.venv/bin/flowfast demo

test: setup-lab ## everything: lint, units, and the kernel tests in the guest
	@$(MAKE) --no-print-directory lint unit guest

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

unit:
	.venv/bin/pytest -q tests/unit

guest:
	.venv/bin/pytest -v --durations=30 -m "not long" tests/guest

test-long: setup-lab ## the kernel tests that take half an hour more: templates, NAT, devices, explain, the lab itself
	.venv/bin/pytest -v --durations=30 -m long tests/guest

clean: ## removes .venv; images stay in the cache folder
	rm -rf .venv build
