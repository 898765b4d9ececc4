"""A capture that is killed at random moments and started again ends as one that was left alone: bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
    assert start(data, tmp_path / "once").wait() == 0
    whole = contents(tmp_path / "once")
    assert len(whole) == 3 * -(-samples // 64) + 1

    done, turn, folder, inside = 0, 0, tmp_path / "0", 0
    while done < kills:
        finished = not killed_after(start(data, folder), rng.uniform(0.1, 0.9))
        done += not finished
        records = len(list((folder / "rows").glob("*.json"))) if (folder / "rows").is_dir() else 0
        inside += not finished and 0 < records < samples / 64
        if finished or records >= samples / 64:
            assert start(data, folder).wait() == 0
            assert contents(folder) == whole
            turn += 1
            folder = tmp_path / str(turn)
    assert start(data, folder).wait() == 0
    assert contents(folder) == whole
    assert inside, "no kill came while shards were written"
