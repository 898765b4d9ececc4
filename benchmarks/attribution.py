"""How fast are our maps against other tools', and do they agree? Two tables, on the same weights, in one run.

    python benchmarks/attribution.py                   four networks
    python benchmarks/attribution.py --quick           ResNet-18 only: two minutes on 2 idle cores
    python benchmarks/attribution.py --models mobilenet_v2 --rounds 5 --only speed

Every round runs the plain forward pass, our method and the peer's one after the other; ratios are made within a round
and their medians shown. `make bench` installs the peers into an environment of its own and runs this.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import agreement  # noqa: E402
from benchmarks.stage import GEMM, MODELS, THREADS, Plan, Row, Stage  # noqa: E402

TOOLS = {"grad-cam": "pytorch-grad-cam", "torch-cam": "torch-cam", "captum": "captum", "torch loop": "a torch loop"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ResNet-18 only, few rounds, fewer channels and windows")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--only", choices=("speed", "agreement", "memory"))
    parser.add_argument("--rounds", type=int, help="of the fast methods (default 9, quick 5); slow ones run 3 or 2")
    parser.add_argument("--channels", type=int, help="that Score-CAM's and a peer's Ablation-CAM's time is taken on")
    options = parser.parse_args()
    models = options.models if not options.quick else options.models[:1]
    plan = Plan(
        fast=options.rounds or (5 if options.quick else 9),
        slow=2 if options.quick else 3,
        channels=options.channels or (32 if options.quick else 64),
        window=(56, 28) if options.quick else (32, 16),
        samples=32 if options.quick else 128,
    )
    with tempfile.TemporaryDirectory() as folder:
        Bench(Path(folder), plan, options.quick, options.only).run(models)


@dataclass(frozen=True)
class Bench:
    """The whole run: models are exported into `folder`."""

    folder: Path
    plan: Plan
    quick: bool
    only: str | None

    def run(self, models: Sequence[str]) -> None:
        torch.set_num_threads(THREADS)
        print(f"{THREADS} threads; {'quick' if self.quick else 'full'} run; {versions()}")
        print(f"{load()} before the run\n")
        verdicts: list[tuple[str, ...]] = []
        agreements: list[tuple[str, ...]] = []
        for name in models:
            stage = Stage.of(name, self.folder)
            if self.only in (None, "speed"):
                verdicts += self.speed(stage)
            if self.only in (None, "memory") and name.startswith("resnet"):
                verdicts += self.memory(stage)
            if self.only in (None, "agreement"):
                agreements += self.agreement(stage)
        print(f"{load()} after the run\n")
        if verdicts:
            print("### Goals\n")
            table(("model", "what", "measured", "goal", "verdict"), verdicts)
        if agreements:
            print("### Agreement\n")
            table(("model", *agreement.HEADER), agreements)

    def speed(self, stage: Stage) -> list[tuple[str, ...]]:
        """Print one model's table; return how its goals were met."""
        peak, forward, batched = stage.machine(self.plan.fast)
        print(f"### {stage.name}: layer {stage.view.layer.name} {stage.shape}, {stage.macs / 1e9:.2f} GMAC\n")
        print(
            f"one forward pass {forward * 1e3:.1f} ms = {reached(stage, forward, peak):.0%} of the GEMM's"
            f" {peak / 1e9:.0f} GFLOP/s (numpy, {GEMM}^3); in batches of 16 {batched * 1e3:.1f} ms a picture ="
            f" {reached(stage, batched, peak):.0%}"
        )
        print(f"sessions made beforehand; from the file on, the first recipro-cam map took {stage.cold:.2f} s\n")
        rows = []
        for row in stage.rows(self.plan):
            row.measure(partial(stage.run, 1))
            rows.append(row)
        lines = []
        for row in rows:
            parts = [f"{s:.0%} of its work timed ({w})" for s, w in shares(row) if s < 0.999]
            peer = (TOOLS[row.peer], ms(row.theirs_s()), f"{row.ratio():.2f}") if row.theirs else ("-", "-", "-")
            lines.append((row.method, ms(row.ours_s()), f"{row.forwards():.2f}", *peer, "; ".join(parts)))
        table(("method", "ours, ms", "forward passes", "peer", "peer, ms", "peer / ours", "estimated from"), lines)
        return list(goals(stage.name, rows, batched))

    def memory(self, stage: Stage) -> Iterator[tuple[str, ...]]:
        """Score-CAM's peak memory, each tool in a process of its own that doesn't load the other."""
        found = {}
        for tool in ("ours", "grad-cam"):
            command = [
                sys.executable,
                str(ROOT / "benchmarks/peak.py"),
                tool,
                stage.name,
                str(self.folder),
                str(THREADS),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, peak = map(float, done.stdout.split())
            found[tool] = peak
            print(f"{stage.name}: score-cam's peak memory, {tool}: {peak:.0f} MiB ({before:.0f} before it began)")
        print()
        share = found["ours"] / found["grad-cam"]
        yield stage.name, "score-cam, peak memory", f"{share:.2f} of grad-cam's", "<= 0.50", verdict(share, 0.5, False)

    def agreement(self, stage: Stage) -> list[tuple[str, ...]]:
        first = stage.name == "resnet18"
        lines = agreement.table(stage.view, stage.subject, 16 if self.quick else 32, quick=self.quick, thoroughly=first)
        return [(stage.name, *line) for line in lines]


def goals(name: str, rows: Sequence[Row], batched: float) -> Iterator[tuple[str, ...]]:
    """Which goals a model's measurements meet."""
    at_most = {"cam": 1.1, "eigen-cam": 1.1, "recipro-cam": 1.15, "ablation-cam": 3.0}
    at_least = {
        ("ablation-cam", "grad-cam"): {"resnet18": 200, "resnet50": 500},
        ("score-cam", "grad-cam"): {"resnet18": 1.6, "resnet50": 2.0},
        ("occlusion", "captum"): dict.fromkeys(MODELS, 1.5),
        ("rise", "torch loop"): dict.fromkeys(MODELS, 1.5),
    }
    for row in rows:
        if row.method in at_most:
            most = at_most[row.method]
            found = row.forwards()
            yield name, row.method, f"{found:.2f} forward passes", f"<= {most}", verdict(found, most, False)
        least = at_least.get((row.method, row.peer), {}).get(name)
        if least is not None:
            found = row.ratio()
            yield (
                name,
                f"{row.method}, {TOOLS[row.peer]} / ours",
                f"{found:.2f}",
                f">= {least}",
                verdict(found, least, True),
            )
        if row.method == "score-cam" and row.peer == "grad-cam":
            rate = row.passes * batched / (row.ours_s() * row.our_share)
            yield name, "score-cam, share of ORT's own rate", f"{rate:.0%}", ">= 90%", verdict(rate, 0.9, True)


def verdict(found: float, goal: float, at_least: bool) -> str:
    missed = goal / found - 1 if at_least else found / goal - 1
    return "met" if missed <= 0 else f"missed by {missed:.0%}"


def shares(row: Row) -> list[tuple[float, str]]:
    if row.theirs is None or row.our_share == row.their_share:
        return [(row.our_share, "both" if row.theirs else "ours")]
    return [(row.our_share, "ours"), (row.their_share, "peer")]


def reached(stage: Stage, seconds: float, peak: float) -> float:
    return 2 * stage.macs / seconds / peak


def versions() -> str:
    names = ("onnxruntime", "torch", "grad-cam", "torchcam", "captum", "numpy")
    return ", ".join(f"{name} {version(name)}" for name in names)


def load() -> str:
    """What else the machine does: above the thread count, other work has disturbed the times and even the ratios."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print as Markdown, columns aligned."""
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    for line in (header, ["-" * w for w in widths], *lines):
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |", flush=True)
    print()


if __name__ == "__main__":
    main()
