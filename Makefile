# Two commands do everything on a fresh machine with Python >= 3.11 and make:
#   make demo   install into .venv, draw pictures of the shipped models, say where they are
#   make test   install into .venv-test what the tests need, and run them
# and one compares with other tools:
#   make bench  install them into .venv-bench, and print speed and agreement side by side
PYTHON ?= python3
SOURCES := pyproject.toml $(shell find onnx_inspect exporters -name '*.py' -o -name '*.onnx' -o -name '*.png' 2>/dev/null)
PIP := -m pip install --quiet --disable-pip-version-check

EXTRAS := test,dev,torch,text,tensorboard,umap,opentsne,ray

.PHONY: demo test test-all web lint format fixtures bench clean

demo: .venv/installed
	.venv/bin/onnx-inspect demo --out onnx-inspect-demo

test: .venv-test/installed web
	.venv-test/bin/python -m pytest -n 2 -m "not slow"

test-all: .venv-test/installed web
	.venv-test/bin/python -m pytest -n 2

# One test runs a baked model by a browser's runtime; it is skipped with its reason where Node.js is missing.
web:
	@command -v npm >/dev/null || { echo "npm is missing: no test under Node.js"; exit 0; }; \
	test -d tests/web/node_modules/onnxruntime-web || npm install --prefix tests/web --no-audit --no-fund \
	  --ignore-scripts --no-package-lock --silent || echo "onnxruntime-web can't be had: no test under Node.js"

lint: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

format: .venv-test/installed
	.venv-test/bin/ruff check --fix .
	.venv-test/bin/ruff format .

fixtures: .venv-test/installed
	.venv-test/bin/python fixtures/build.py

# QUICK=1 measures ResNet-18 only: two minutes on 2 idle cores; the full run takes several times that.
bench: .venv-bench/installed
	.venv-bench/bin/python benchmarks/attribution.py $(if $(QUICK),--quick)

clean:
	rm -rf .venv .venv-test .venv-bench tests/web/node_modules onnx-inspect-demo

.venv/installed: $(SOURCES)
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) ".[text]"
	touch $@

# The constraints pin torch to a CPU build: a newer one would bring several gigabytes of CUDA packages along.
.venv-test/installed: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python $(PIP) --constraint tests/constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

# The peers ask for torchvision, which has no CPU build for this torch: benchmarks/stubs stands in for it, so they are
# installed without what they ask for, and the rest of that after them.
.venv-bench/installed: pyproject.toml tests/constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python $(PIP) --constraint tests/constraints.txt --editable ".[torch]"
	.venv-bench/bin/python $(PIP) --constraint tests/constraints.txt opencv-python-headless tqdm ttach
	.venv-bench/bin/python $(PIP) --no-deps --requirement benchmarks/requirements.txt
	touch $@
