"""`onnx-inspect --help` is quick because it imports next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

HEAVY = {
    "onnx",
    "onnxruntime",
    "matplotlib",
    "sklearn",
    "scipy",
    "torch",
    "numpy",
    "PIL",
    "rich",
    "ml_dtypes",
    "google",
}
SCRIPT = """
import json, sys
from onnx_inspect.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print(json.dumps({"code": code, "modules": sorted({name.split(".")[0] for name in sys.modules})}), file=sys.stderr)
"""


def loaded(*words: str) -> set[str]:
    """Packages that a fresh process has imported after running the program with these words."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True)
    report = json.loads(ran.stderr.splitlines()[-1])
    assert report["code"] == 0
    assert ran.stdout.strip()
    return set(report["modules"])


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["cam", "--help"], ["embed", "--help"], ["summary", "--help"], ["export", "--help"]],
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert not loaded(*words) & HEAVY


def test_the_package_itself_imports_nothing_heavy() -> None:
    script = "import sys, onnx_inspect, onnx_inspect.errors, onnx_inspect.discover; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in ran.stdout.split()} & HEAVY


def test_help_is_quick() -> None:
    """0.14 s where this was written; the promise is 0.3 s. Others may use the machine: the best of five counts."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "onnx_inspect", "--help"], capture_output=True, check=True)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.9, f"--help took {min(taken):.2f} s"
