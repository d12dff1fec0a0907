# make venv         .venv with every command, following this checkout
# make demo         jobs from submission to result, in a directory of their own
# make demo-agents  a job by the vendors' CLIs, with a model that plays a script
# make dev          webhook, a slot and housekeeping in the foreground, configured by .env
# make webhook-example  posts an example to what make dev runs
# make deb          the Debian package, in dist/
# make install      installs below DESTDIR and PREFIX (/usr/local)
# make test         the suites, the same tests every time; installs what is missing when root
# make test-unit    what is decided without starting a process: a minute
# make test-all     adds each point of a crash, each end of an agent, the virtual machine, the soak
# make test-agents  the suites of the real CLIs and of the broker alone
# make bench        measures what the design promises
# make lint         the linters alone

PYTHON ?= python3
PYTEST_ARGS ?=
# a third of what the suites do is waiting; and whoever is done takes from who is not
PARALLEL := -n 3 --dist worksteal
VENV := .venv
PYTEST := $(VENV)/bin/python -m pytest -q
# systemd-python is built from source
SYSTEMD = $(shell pkg-config --exists libsystemd 2>/dev/null && echo systemd)
BIND ?= 127.0.0.1:8080
PACKAGES := bash-completion:/usr/share/bash-completion/bash_completion bubblewrap:bwrap curl:curl gcc:gcc \
	lintian:lintian openssh-client:ssh-keygen zsh:zsh \
	debootstrap:debootstrap e2fsprogs:mkfs.ext4 firejail:firejail git:git \
	groff-base:groff iproute2:ip man-db:man npm:npm openssl:openssl podman:podman ripgrep:rg \
	qemu-system-x86:qemu-system-x86_64 qemu-utils:qemu-img scdoc:scdoc shellcheck:shellcheck \
	strace:strace systemd-container:systemd-nspawn \
	python3-aiohttp:/usr/lib/python3/dist-packages/aiohttp \
	python3-click:/usr/lib/python3/dist-packages/click \
	python3-httpx:/usr/lib/python3/dist-packages/httpx \
	python3-jinja2:/usr/lib/python3/dist-packages/jinja2 \
	python3-jsonschema:/usr/lib/python3/dist-packages/jsonschema \
	python3-prometheus-client:/usr/lib/python3/dist-packages/prometheus_client \
	python3-rich:/usr/lib/python3/dist-packages/rich \
	python3-sdnotify:/usr/lib/python3/dist-packages/sdnotify \
	libsystemd-dev:/usr/include/systemd/sd-journal.h pkg-config:pkg-config \
	python3-waitress:/usr/lib/python3/dist-packages/waitress
DEB_PACKAGES := debhelper:dh dh-python:dh_python3 dpkg-dev:dpkg-buildpackage scdoc:scdoc
# Debian's alone: asked for by itself, or apt would install none of the others on Ubuntu
BROWSER := chromium-headless-shell:chromium-headless-shell
AGENT_PACKAGES := bubblewrap:bwrap git:git iproute2:ip npm:npm openssl:openssl ripgrep:rg
AGENT_TESTS := tests/functional/broker tests/functional/sandbox tests/agents tests/functional/preflight/test_login.py tests/docs/test_demo.py

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
MAKEFLAGS += --no-print-directory

.PHONY: venv demo demo-agents dev webhook-example deb install test test-unit test-all test-agents bench lint packages clean
.DELETE_ON_ERROR:

venv: $(VENV)/.installed
	@:

# Made anew where its Python has gone; else pip takes over what pyproject.toml says now.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'make: $(PYTHON) is older than 3.11; try: make PYTHON=python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || packaging/need python3-venv:module=ensurepip
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install -qq --editable '.[$(SYSTEMD)]'
	@[ -n '$(SYSTEMD)' ] || echo 'make: without libsystemd-dev and pkg-config: no socket activation,' \
		'no agentorch-logs --journal --follow' >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(VENV)/bin/python -m pip install -qq --editable '.[dev,$(SYSTEMD)]'
	@touch $@

demo: venv
	@examples/demo/run

demo-agents: venv
	@examples/demo/agents

dev: venv
	@PATH='$(CURDIR)/$(VENV)/bin':"$$PATH" packaging/dev $(BIND)

webhook-example:
	@curl --fail-with-body --silent --show-error \
		--header 'Authorization: Bearer dev-token' --header 'Content-Type: application/json' \
		--data @examples/webhook_payloads/simple.json http://$(BIND)/webhook
	@echo

deb:
	@packaging/need $(DEB_PACKAGES)
	@packaging/deb

# packaging/install says which other places can be chosen
install:
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' packaging/install

test: packages $(VENV)/.dev
	@$(PYTEST) $(PARALLEL) $(PYTEST_ARGS)

test-unit: $(VENV)/.dev
	@$(PYTEST) -n 2 tests/unit $(PYTEST_ARGS)

# hours
test-all: export TEST_ALL := 1
test-all: test

test-agents: $(VENV)/.dev
	@packaging/need $(AGENT_PACKAGES) || echo 'make: the tests that need these will be skipped' >&2
	@TEST_ALL=1 $(PYTEST) $(PARALLEL) $(AGENT_TESTS) $(PYTEST_ARGS)

bench: $(VENV)/.dev
	@$(VENV)/bin/python tests/bench/run.py

lint: $(VENV)/.dev
	@$(PYTEST) tests/lint

# Where one stays missing, the tests that need it are skipped, each with its reason.
packages:
	@packaging/need $(PACKAGES) $(DEB_PACKAGES) || echo 'make: the tests that need these will be skipped' >&2
	@packaging/need $(BROWSER) || echo 'make: no browser will look at the reports' >&2

clean:
	@rm -rf $(VENV) build dist lib/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
