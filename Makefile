# Two commands do everything on a fresh machine with Python >= 3.11 and make:
#   make demo   install into .venv, draw pictures of the shipped models, say where they are
#   make test   install into .venv-test what the tests need, and run them
PYTHON ?= python3
SOURCES := pyproject.toml $(shell find onnx_inspect exporters -name '*.py' -o -name '*.onnx' -o -name '*.png' 2>/dev/null)
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all lint format fixtures bench clean

demo: .venv/installed
	.venv/bin/onnx-inspect demo --out onnx-inspect-demo

test: .venv-test/installed
	.venv-test/bin/python -m pytest -n 2 -m "not slow"

test-all: .venv-test/installed
	.venv-test/bin/python -m pytest -n 2

lint: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

format: .venv-test/installed
	.venv-test/bin/ruff check --fix .
	.venv-test/bin/ruff format .

fixtures: .venv-test/installed
	.venv-test/bin/python fixtures/build.py

bench: .venv-test/installed
	.venv-test/bin/python benchmarks/forward_ratio.py

clean:
	rm -rf .venv .venv-test onnx-inspect-demo

.venv/installed: $(SOURCES)
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) .
	touch $@

# The constraints pin torch to a CPU build: a newer one would bring several gigabytes of CUDA packages along.
.venv-test/installed: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python $(PIP) --constraint tests/constraints.txt --editable ".[test,dev,torch]"
	touch $@
