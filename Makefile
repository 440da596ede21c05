# Everything starts from a plain Debian 12 with make, git, python3 (3.11) and python3-venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

BUILD_KP := adaptive_compute/backends/vulkan/build-kp.sh

# A test at a time on each core; -n 0 runs them in one process, which is easier to debug.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: venv vulkan profile test test-slow tiny shaders lint types layers check bench clean test-cuda test-vulkan-validation validation-layer browser test-report test-vulkan-strict docs

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

profile: venv
	$(BIN)/adaptive profile

# A Vulkan driver and Kompute's package; does nothing where both are there.
vulkan: venv
	bash $(BUILD_KP) $(BIN)/python

test: venv
	bash $(BUILD_KP) --if-possible $(BIN)/python
	$(PYTEST) -m 'not slow'

# The long sweeps that `make test` leaves out.
test-slow: venv
	$(PYTEST) -m slow

# The Vulkan tests under Khronos's validation layer.
test-vulkan-validation: vulkan validation-layer
	$(BIN)/python -m pytest tests/backends/vulkan/test_validation.py

# Khronos's validation layer, from Debian's packages; one of the long sweeps uses it.
validation-layer:
	@dpkg-query -W vulkan-validationlayers 2>/dev/null || { apt-get update -q && \
		apt-get install -q -y --no-install-recommends vulkan-validationlayers; }

# Conformance on Vulkan with dependent steps submitted one by one, which is Vulkan's letter.
test-vulkan-strict: vulkan
	$(PYTEST) -m 'not slow' tests/conformance --backend vulkan --strict-order

# A browser for the tests of the report, from Debian's packages.
browser:
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }

# The report's page in that browser.
test-report: venv
	$(BIN)/python -m pytest -m 'not slow' tests/report

# On a machine with an NVIDIA GPU, where torch with CUDA (and CuPy, Triton, cuFINUFFT) is installed already: checks every
# CUDA kernel and measures it against the libraries beneath. PYTHON names that installation's interpreter.
test-cuda:
	PYTHON=$(PYTHON) benchmarks/gpu/run_cuda.sh cuda-results

tiny: venv
	$(BIN)/python -m pytest tests/test_tiny.py

shaders: venv
	$(BIN)/python adaptive_compute/shaders/compile.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

layers: venv
	$(BIN)/python tests/layers.py

# The pages of docs/ and the reference, as a site in build/site; a warning is an error.
docs: venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: test lint types layers

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
