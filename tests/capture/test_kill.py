"""A capture that is killed at random moments and started again ends as one that was left alone: bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
NET = ROOT / "fixtures" / "digits_convnet.onnx"
Digits = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["capture", str(NET), str(data), "--layer", "MaxPool:-1", "--layer", "Relu:-1", "--shard", "64"]
    words += ["--threads", "1", "--quiet", "-o", str(out)]
    return subprocess.Popen([sys.executable, "-m", "onnx_inspect", *words], cwd=ROOT, stdout=subprocess.DEVNULL)


def killed_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Let a process run for a while, then kill it; False if it had ended by itself."""
    try:
        assert process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    return False


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("kills", "samples"), [(3, 5_000), pytest.param(24, 30_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_captures_end_as_those_left_alone(digits: Digits, tmp_path: Path, kills: int, samples: int) -> None:
    rng = np.random.default_rng(kills)
    chosen = rng.integers(0, len(digits[0]), samples)
    data = tmp_path / "data.npz"
    np.savez(data, images=digits[0][chosen], labels=digits[1][chosen])
    began = time.monotonic()
    assert start(data, tmp_path / "once").wait() == 0
    whole, taken = contents(tmp_path / "once"), time.monotonic() - began
    shards = -(-samples // 64)
    assert len(whole) == 3 * shards + 1

    killed, inside, turn, folder = 0, 0, 0, tmp_path / "0"
    while killed < kills or not inside:  # at least one while shards are written, however slow the machine
        assert killed < kills + 50, "no kill came while shards were written"
        cut = killed_after(start(data, folder), rng.uniform(0.1, 1) * taken)
        there = len(list((folder / "rows").glob("*.json")))
        killed, inside = killed + cut, inside + (cut and 0 < there < shards)
        if not cut or there == shards:
            assert start(data, folder).wait() == 0
            assert contents(folder) == whole
            turn += 1
            folder = tmp_path / str(turn)
    assert start(data, folder).wait() == 0
    assert contents(folder) == whole
