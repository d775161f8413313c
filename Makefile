# make            the verbs
# make test       everything a change needs: builds, then pytest
# Variables: PYTHON (to make the environments with), VENV, TORCH_INDEX, ARGS (for pytest, for bench).

PYTHON ?= python3
VENV ?= .venv
LIGHT_VENV ?= .venv-light
DOCS_VENV ?= .venv-docs
DEMO_VENV ?= .venv-demo
BENCH_VENV ?= .venv-bench
CMAKE ?= cmake
TORCH ?= 2.13.0
# PyPI's own torch for Linux brings CUDA; this index has the CPU build, which pip prefers (2.13.0+cpu > 2.13.0).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=
# The AVX-VNNI kernels of a development build: made of AVX2 instructions to be tested anywhere, or evex to be measured.
TWIN ?= avx2
PEERS := onnx onnxscript onnxruntime openvino libggml-python matplotlib

BIN := $(VENV)/bin
BENCH_BIN := $(BENCH_VENV)/bin
C_FILES := $(shell find ggml_kernels -name '*.c' -o -name '*.h')
C_TESTS := $(wildcard tests/ggml_kernels/*.[ch])
CMAKE_FILES := CMakeLists.txt ggml_kernels/make_cdef.py
CC ?= cc
comma := ,

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: always help venv build debug docs quick test slow lint lint-python lint-types lint-c lint-workflows format demo bench bench-smoke soak lowest fuzz wheel wasm site windows arm instructions sanitize asan tsan world life clean

help:
	@echo 'make venv      $(VENV) with torch (CPU) and the development tools, and the C core built'
	@echo 'make build     build the C core again where it changed'
	@echo 'make docs      the pages and the API reference as a site -> build/site'
	@echo 'make quick     the tests that find most mistakes in a minute, without torch'
	@echo 'make test      pytest; ARGS="-k name" for a part, ARGS=--durations=15 for the slowest'
	@echo 'make debug     the core with symbols, assertions and -O1, for gdb (docs/building.md)'
	@echo 'make slow      the tests that take long'
	@echo 'make lint      ruff, mypy, clang-format, C warnings as errors, zizmor'
	@echo 'make format    ruff and clang-format, in place'
	@echo 'make demo      play the bundled world in an environment without torch -> demo.gif'
	@echo 'make fuzz      random input for all that takes input; ARGS="--minutes 30" (--help: more)'
	@echo 'make sanitize  the kernel tests under ASan + UBSan, then TSan (slow)'
	@echo 'make bench     measure this machine beside other engines -> docs/performance.md (minutes; on an idle machine)'
	@echo '               ARGS=--resume goes on after an interruption, ARGS="--only step,frames" measures these again'
	@echo 'make soak      genie-serve under clients that come, go and misbehave; ARGS="--minutes 20"'
	@echo 'make lowest    the commands with the lowest versions of all dependencies'
	@echo 'make wheel     the Linux wheel for this machine -> dist/, tested without a compiler and as an older CPU'
	@echo 'make wasm      the core as WebAssembly, for genie-cpp web'
	@echo 'make site      a page to link to, with the bundled worlds -> build/pages'
	@echo 'make windows   cross-compile the core for Windows (MinGW-w64) and run its tests under Wine'
	@echo 'make arm       cross-compile for ARM and count instructions -> docs/arm.md (the tests run it under qemu)'
	@echo 'make instructions  record how many a step takes, after a change that is meant to alter it'
	@echo 'make world     print how the bundled worlds are made'
	@echo 'make life      play the bundled worlds for long and hold them to their bars (minutes)'
	@echo 'make clean     remove build products; the environments stay'

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --retries 1 --extra-index-url $(TORCH_INDEX) torch==$(TORCH)
	@touch $@

# Python sources are used in place, so pip is needed once, and again when the list of dependencies changes.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -e '.[dev]'
	@touch $@

# After a change to C only CMake runs, in its own folder, and installs the core where pip installed it.
$(VENV)/.built: $(VENV)/.installed $(CMAKE_FILES) $(C_FILES) build/twin
	$(call core,build/dev,Release,$(BIN))
	@touch $@

# Newer than the core where TWIN is another one than the core was built with.
build/twin: always
	@mkdir -p build
	@echo '$(TWIN)' | cmp -s - $@ || echo '$(TWIN)' > $@
always:

# $(1): CMake's folder, $(2): its build type, $(3): the environment's programs.
define core
@$(CMAKE) -S . -B $(1) -DCMAKE_BUILD_TYPE=$(2) -DGENIE_INSTALL=ON -DGENIE_AVXVNNI_TWIN=$(TWIN) -DPython3_EXECUTABLE=$(abspath $(3))/python >/dev/null
@$(CMAKE) --build $(1) -j 2
@$(CMAKE) --install $(1) --prefix "$$($(3)/python -c 'import sysconfig; print(sysconfig.get_paths()["platlib"])')" >/dev/null
endef

# Assertions, symbols and -O1 in the core of $(VENV), for a debugger (docs/building.md). `make build` undoes it.
debug: $(VENV)/.installed
	$(call core,build/debug,Debug,$(BIN))
	@touch -d 1970-01-01 $(VENV)/.built

venv build: $(VENV)/.built

# Two tests at a time: most of them use one core.
test: build
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

# The tests that find most mistakes in a minute: no torch, no browser, no emulators. They run in $(VENV) or, if that is
# not there, in an environment a tenth of its size.
quick: $(if $(wildcard $(VENV)/.torch),$(VENV),$(LIGHT_VENV))/.built
	$(dir $<)bin/pytest --quick -n 2 --dist worksteal $(ARGS)

$(LIGHT_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LIGHT_VENV)
	$(LIGHT_VENV)/bin/pip install -e '.[test]'
	@touch $@

$(LIGHT_VENV)/.built: $(LIGHT_VENV)/.installed $(CMAKE_FILES) $(C_FILES) build/twin
	$(call core,build/dev,Release,$(LIGHT_VENV)/bin)
	@touch $@

# The pages and the API reference as a site, build/site; a warning is an error.
docs: $(DOCS_VENV)/.installed
	$(DOCS_VENV)/bin/mkdocs build --strict -q

$(DOCS_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.26'
	@touch $@

# The core as WebAssembly, with 128-bit vectors and without, into the package. Needs clang-19, lld-19, wasi-libc and
# libclang-rt-19-dev-wasm32. The files are in the repository, so that exporting a page needs none of them.
WASM_CC ?= clang-19
WASM_SOURCES = $(filter-out %_avx2.c %_avxvnni.c %_avx512vnni.c %_avx512bf16.c %_neon.c %_dotprod.c %_i8mm.c, \
  $(sort $(filter ggml_kernels/src/%.c,$(C_FILES))))
WASM_FLAGS = --target=wasm32-wasi -O3 -std=c11 -ffp-contract=off -fno-math-errno -fvisibility=hidden -Wall -Wextra \
  -Werror -Iggml_kernels/include -mexec-model=reactor -nostartfiles -Wl,--no-entry -Wl,-z,stack-size=4194304 \
  -Wl,--stack-first -Wl,--export-dynamic -Wl,--export=malloc -Wl,--export=free -Wl,--strip-all -Wl,--gc-sections
# With memory that workers share. wasi-libc is made without atomics (so the linker is not to check), and only the first
# thread calls it.
WASM_THREADS = -matomics -mbulk-memory -Wl,--no-check-features -Wl,--shared-memory -Wl,--import-memory \
  -Wl,--initial-memory=16777216 -Wl,--max-memory=4294967296 -Wl,--export=__stack_pointer -Wl,--export=__wasm_init_tls \
  -Wl,--export=__tls_size
WASM ?= genie_cpp/web/site

wasm:
	$(WASM_CC) $(WASM_FLAGS) $(filter-out %_simd128.c,$(WASM_SOURCES)) -o $(WASM)/genie.wasm
	$(WASM_CC) $(WASM_FLAGS) -msimd128 $(WASM_SOURCES) -o $(WASM)/genie-simd128.wasm
	$(WASM_CC) $(WASM_FLAGS) $(WASM_THREADS) -msimd128 $(WASM_SOURCES) -o $(WASM)/genie-threads.wasm
	chmod 644 $(WASM)/*.wasm

# A page of each bundled world and one in front, for any host of static files.
site: build
	rm -rf build/pages
	mkdir -p build/pages
	for world in meadow maze; do $(BIN)/genie-cpp web $$world -o build/pages/$$world; done
	cp docs/pages.html build/pages/index.html
	cp docs/meadow.gif docs/maze.gif build/pages/
	@echo 'python -m http.server -d build/pages 8000'

# Tests that take long; every night.
slow: build
	$(BIN)/pytest -m slow -n 2 --dist worksteal $(ARGS)

# The package as it installs: genie_cpp with convert, cli, server and train inside. $(1): the folder it is made in.
define package
rm -rf $(1)/genie_cpp
mkdir -p $(1)/genie_cpp
ln -s $(CURDIR)/genie_cpp/* $(CURDIR)/convert $(CURDIR)/cli $(CURDIR)/server $(CURDIR)/train $(1)/genie_cpp/
endef

lint: lint-python lint-types lint-c lint-workflows

lint-python: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy would take convert, cli, server and train for separate packages, so it gets the package as it is installed.
lint-types: build
	@$(call package,build/mypy)
	cd build/mypy && MYPYPATH=. $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p genie_cpp

lint-c: build
	$(BIN)/clang-format --dry-run -Werror $(C_FILES) $(C_TESTS)
	$(CMAKE) -S . -B build/werror -DGENIE_WERROR=ON -DPython3_EXECUTABLE=$(abspath $(BIN))/python >/dev/null
	$(CMAKE) --build build/werror

# Offline: only the checks of workflows that need no network.
lint-workflows: build
	$(BIN)/zizmor --offline --pedantic .github/workflows

format: build
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES) $(C_TESTS)

demo:
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install -q .
	$(DEMO_VENV)/bin/genie-run --prompt-frame examples/meadow/frame.png --actions 'right*12,down*12,left*12' -o demo.gif -y
	@echo 'the GIF is $(CURDIR)/demo.gif'

# The engines that genie_cpp is compared with have their own environment. ggml is there twice: the wheel, limited to
# AVX2, and its sources compiled for this CPU as llama.cpp compiles them.
$(BENCH_VENV)/.peers:
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_BIN)/pip install --retries 1 --extra-index-url $(TORCH_INDEX) torch==$(TORCH)
	$(BENCH_BIN)/pip install $(PEERS)
	CMAKE_ARGS='-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON' $(BENCH_BIN)/pip install --no-deps --no-cache-dir --no-binary libggml-python \
	  --upgrade --target $(BENCH_VENV)/ggml-native libggml-python
	@touch $@

$(BENCH_VENV)/.built: $(BENCH_VENV)/.peers pyproject.toml $(CMAKE_FILES) $(C_FILES)
	$(BENCH_BIN)/pip install -e '.[convert]'
	@touch $@

bench: $(BENCH_VENV)/.built
	$(BENCH_BIN)/python -W ignore benchmarks/performance.py -o docs/performance.md $(ARGS)

# The same program in seconds, with whatever peers $(VENV) has. Its figures mean nothing.
bench-smoke: build
	mkdir -p build/bench-smoke
	$(BIN)/python -W ignore benchmarks/performance.py --smoke --work build/bench-smoke -o build/bench-smoke/performance.md

# Needs Python 3.11: the lowest numpy has no wheels for later Pythons, and earlier Pythons have no TOML reader.
lowest:
	rm -rf build/lowest
	$(PYTHON) -m venv build/lowest
	$(PYTHON) tests/lowest.py > build/lowest/constraints.txt
	build/lowest/bin/pip install -q -c build/lowest/constraints.txt '.[play,gym,video]'
	$(PYTHON) tests/lowest.py build/lowest/bin

soak: build
	$(BIN)/python benchmarks/soak.py $(ARGS)

# A wheel made here needs this system's C library or a newer one; .github/workflows/wheels.yml makes wheels for all.
wheel: build
	rm -rf build/wheel
	$(BIN)/pip wheel -q --no-deps -w build/wheel .
	PATH=$(abspath $(BIN)):$$PATH auditwheel repair -w build/wheel/repaired build/wheel/*.whl
	$(BIN)/pytest -m "" --confcutdir=tests/wheel tests/wheel --wheel build/wheel/repaired/*.whl $(ARGS)
	mkdir -p dist
	mv build/wheel/repaired/*.whl dist/

windows: build
	$(BIN)/pytest -m "" tests/ggml_kernels/test_differential.py -k windows $(ARGS)

arm: build
	$(CMAKE) --toolchain cmake/aarch64-linux-gnu.cmake -S . -B build/aarch64 -DGENIE_WERROR=ON \
	  -DPython3_EXECUTABLE=$(abspath $(BIN))/python >/dev/null
	$(CMAKE) --build build/aarch64
	$(BIN)/python benchmarks/arm.py build/aarch64 docs/arm.md

instructions: build
	$(CMAKE) -S . -B build/count -DGENIE_TESTS=ON -DPython3_EXECUTABLE=$(abspath $(BIN))/python >/dev/null
	$(CMAKE) --build build/count
	$(BIN)/python tests/ggml_kernels/test_instructions.py build/count/genie_step build/count

sanitize: asan tsan

# A sanitized core beside the package's sources. It is found before the installed one: -S leaves out the editable install.
# $(1): name, $(2): what -fsanitize takes, $(3): the runtime to load first, $(4): options, $(5): what Python runs
define sanitized
$(CMAKE) -S . -B build/$(1)/core -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGENIE_SANITIZE=$(2) \
  -DPython3_EXECUTABLE=$(abspath $(BIN))/python >/dev/null
$(CMAKE) --build build/$(1)/core
$(call package,build/$(1))
ln -s $(CURDIR)/build/$(1)/core/libgenie.so $(CURDIR)/build/$(1)/core/genie_cdef.py build/$(1)/genie_cpp/
PYTHONPATH=build/$(1):$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
  LD_PRELOAD=$$($(CC) -print-file-name=$(3)) $(4) setarch $$(uname -m) -R \
  $(BIN)/python -S $(5) $(ARGS)
endef

# The ignored tests run other programs, in emulators and callgrind.
KERNEL_TESTS = $(BIN)/pytest -s -p no:cacheprovider tests/ggml_kernels $(patsubst %,--ignore=tests/ggml_kernels/%, \
  test_differential.py test_instructions.py)

# Python itself leaks by design, so leak detection is off.
asan: build
	$(call sanitized,asan,address$(comma)undefined,libasan.so,ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1,$(KERNEL_TESTS))

tsan: build
	$(call sanitized,tsan,thread,libtsan.so,TSAN_OPTIONS=halt_on_error=1:suppressions=ggml_kernels/tsan.supp,\
	  $(KERNEL_TESTS))

# Fuzzes all code that reads foreign input, then the core again under ASan and UBSan; ARGS="--minutes 30" for each.
fuzz: build
	$(BIN)/python tests/fuzz/fuzz.py $(ARGS)
	$(call sanitized,asan,address$(comma)undefined,libasan.so,ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1,tests/fuzz/fuzz.py --only worlds$(comma)gguf$(comma)states)

world:
	@sed -n '/^```sh/,/^```/p' examples/meadow/README.md examples/maze/README.md | grep -v '^```'

# Recorded play of each game, as much of it as measuring needs.
data/%/test.npz:
	$(BIN)/python examples/training/collect.py examples/$* -o data/$* --episodes 1

# Frames that are seen for the first time, in order and by a fixed seed: the same figures on the same instruction set.
life: build data/meadow/test.npz data/maze/test.npz
	$(BIN)/genie-eval -m meadow --data data/meadow --life --speed --strict $(ARGS)
	$(BIN)/genie-eval -m maze --data data/maze --life --speed --bar reconstruction=28 --strict $(ARGS)

clean:
	rm -rf build dist demo.gif .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	rm -f $(VENV)/.built
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
