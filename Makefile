# Everything runs in .venv, which the first target that needs it makes. PYTHON picks the interpreter.
PYTHON ?= python3
BIN := .venv/bin
FUZZ_SECONDS ?= 10
# What `make serve` serves: a folder that kdant export wrote.
SERVED ?= served
INSTALLED := .venv/installed
# setuptools prints a page about every editable installation; errors are shown all the same.
PIP = PYTHONWARNINGS=ignore $(@D)/bin/python -m pip install --quiet
# Where Python may keep no bytecode, pytest rewrites every test anew: half the time of finding them.
export PYTHONDONTWRITEBYTECODE :=
# A process holds about 2 GB; PARALLEL= runs the tests in one. Files come in order: e2e, the long ones, first. A
# process that crashes ends the run: pytest-xdist 3.8 can wait for ever after it has replaced one.
PARALLEL ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: demo docs docs-serve test test-fast test-beam test-io test-gpu test-wheel check lint bench check-weights fuzz format \
	wheel image image-gpu serve clean

demo: $(INSTALLED)  ## the whole loop on rendered videos
	$(BIN)/kdant demo --overwrite

test: $(INSTALLED)  ## the test suite, in two processes
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(INSTALLED)  ## equations, properties and units, but for what is marked as slow
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" tests/unit tests/golden tests/property

test-beam: .venv-beam/installed  ## builds on Apache Beam, in an environment of its own
	.venv-beam/bin/python -m pytest tests/e2e/test_beam.py

test-io: .venv-io/installed  ## records in a local S3 server, on TensorFlow 2.17, in an environment of its own
	.venv-io/bin/python -m pytest tests/opt_in/check_s3.py

test-wheel: wheel  ## the tiny demo and README's Python from the wheel, beside what it declares and nothing else
	.ci/test_wheel

# Needs a GPU that TensorFlow sees: NVIDIA's driver, and in .venv pip install "tensorflow[and-cuda]"; two of them for the
# tests of several. Without one every test is skipped, with the reason. tests/benchmarks/bench_gpu.py needs no TensorFlow.
test-gpu: $(INSTALLED)  ## what needs GPUs; the other tests hide them
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES-0,1,2,3,4,5,6,7} $(BIN)/python -m pytest -m gpu -rs

check: lint test  ## format, lint, types, tests

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/serving/compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

bench: $(INSTALLED)  ## speed, as ratios inside one run; BENCH holds options
	$(BIN)/python tests/benchmarks/bench.py $(BENCH)
	$(BIN)/python tests/benchmarks/bench_inference.py
	$(BIN)/python tests/benchmarks/bench_pooling_memory.py
	$(BIN)/python tests/benchmarks/bench_building.py
	$(BIN)/python tests/benchmarks/bench_reading.py
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python tests/benchmarks/bench_teacher_cache.py

check-weights: $(INSTALLED)  ## DeepMind's weights give DeepMind's logits; downloads them
	$(BIN)/python -m pytest --timeout=0 tests/opt_in/check_published_logits.py

fuzz: $(INSTALLED)  ## every parser on damaged input, FUZZ_SECONDS each
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[fuzz]"
	for target in $$($(BIN)/python tests/fuzz/run.py --list); do \
	    $(BIN)/python tests/fuzz/run.py $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

docs: $(INSTALLED)  ## the documentation as a site in docs/_build/html; a broken link is an error
	CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet \
		--jobs 2 docs docs/_build/html

docs-serve: docs  ## the site on http://localhost:8001
	$(BIN)/python -m http.server 8001 --bind localhost --directory docs/_build/html

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m build --wheel

# Without an engine these say so and succeed: nothing else depends on what they make.
ENGINE = docker info >/dev/null 2>&1 || { echo "No Docker engine answers here: nothing to do."; exit 0; }

image:  ## the command as an image, named kdant
	@$(ENGINE); docker build --file docker/Dockerfile --tag kdant .

image-gpu:  ## likewise with CUDA, named kdant:gpu
	@$(ENGINE); docker build --file docker/Dockerfile --tag kdant:gpu \
		--build-arg TENSORFLOW="tensorflow[and-cuda]" .

serve:  ## TensorFlow Serving with the model in SERVED
	@$(ENGINE); SERVED="$(abspath $(SERVED))" docker compose --file docker/serving/compose.yaml up --wait

clean:
	rm -rf .venv .venv-beam .venv-io build dist docs/_build kdant_tf.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

# Extras that need other versions of TensorFlow or protobuf than constraints.txt has. TensorFlow itself is linked to where
# its version is the same.
.venv-beam/installed: $(INSTALLED) constraints-beam.txt
	$(BIN)/python -m venv $(@D)
	$(BIN)/python .ci/link_packages.py $(@D) kdant-tf
	$(PIP) --constraint constraints-beam.txt --editable ".[beam]" pytest pytest-timeout hypothesis
	touch $@

.venv-io/installed: pyproject.toml constraints-io.txt
	$(PYTHON) -m venv $(@D)
	$(PIP) --upgrade pip
	$(PIP) --constraint constraints-io.txt --editable ".[io]" pytest pytest-timeout hypothesis "moto[s3,server]"
	touch $@
