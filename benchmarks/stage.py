"""One network ready to be explained by every tool, and what is timed on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from threadpoolctl import threadpool_limits

from benchmarks import networks, peers
from benchmarks.agreement import CELLS, FILL, LOGIT, on_channels
from exporters.pytorch import export
from onnx_inspect import methods
from onnx_inspect.cam._grids import draw
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam._superpixels import grid
from onnx_inspect.engine import Engine
from onnx_inspect.graph.cost import cost
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.ops import normalise, resize
from onnx_inspect.scene import Scene

THREADS = 2
PAUSE = 0.05  # seconds before each timing: threads of the run before go on spinning for a while
SHORT = 0.5  # seconds: anything shorter runs twice and the second time counts, its weights then being in the caches
GEMM = 2048
MODELS = tuple(networks.UNTRAINED)


@dataclass(frozen=True)
class Plan:
    """How much is measured: rounds, channels of Score-CAM, occlusion's window and stride, samples of RISE and LIME."""

    fast: int
    slow: int
    channels: int
    window: tuple[int, int]
    samples: int


@dataclass
class Row:
    """One method against one peer, each a function of nothing; a share says how much of its whole work is timed."""

    method: str
    ours: Callable[[], object]
    peer: str = ""
    theirs: Callable[[], object] | None = None
    rounds: int = 1
    our_share: float = 1.0
    their_share: float = 1.0
    passes: int = 0  # full passes in the timed part, where there are many
    times: list[tuple[float, float, float]] = field(default_factory=list)  # seconds: forward pass, ours, theirs

    def measure(self, forward: Callable[[], object]) -> None:
        """Alternate: who goes first takes turns; the first round warms up."""
        for turn in range(self.rounds + 1):
            before = timed(forward)
            theirs = timed(self.theirs) if self.theirs and turn % 2 else float("nan")
            mine = timed(self.ours)
            if self.theirs and not turn % 2:
                theirs = timed(self.theirs)
            self.times.append(((before + timed(forward)) / 2, mine, theirs))
        del self.times[0]

    def ratio(self) -> float:
        """Peer's time over ours, both for the whole work."""
        return statistics.median(b / a for _, a, b in self.times) * self.our_share / self.their_share

    def forwards(self) -> float:
        """Our time, for the whole work, in forward passes."""
        return statistics.median(a / f for f, a, _ in self.times) / self.our_share

    def ours_s(self) -> float:
        return statistics.median(a for _, a, _ in self.times) / self.our_share

    def theirs_s(self) -> float:
        return statistics.median(b for _, _, b in self.times) / self.their_share


@dataclass(frozen=True)
class Stage:
    """A torch module and its exported file behind every tool, with one picture and the class found in it."""

    name: str
    subject: peers.Subject
    view: Scene
    macs: int
    run: Callable[[int], object]  # a forward pass of so many pictures
    cold: float  # seconds from the file to the first map

    @classmethod
    def of(cls, name: str, folder: Path) -> Stage:
        """Build and export a network; leave its file, its weights and the picture in `folder`."""
        net: Any = networks.calibrated(name)
        file = folder / f"{name}.onnx"
        export(net, input=(1, 3, 224, 224), out=file)
        torch.save(net.state_dict(), folder / f"{name}.pt")
        picture = networks.pictures(1, 5)
        np.save(folder / "picture.npy", picture.numpy())
        start = time.perf_counter()
        view = seen(file, picture.numpy())
        methods.attribute(view, "recipro-cam")
        cold = time.perf_counter() - start
        layers = {"m": lambda: net.features[-1], "v": lambda: net.blocks[-2], "r": lambda: net.layer4[-1]}
        reshape = peers.maps_of_tokens if name[0] == "v" else None
        subject = peers.Subject(net, layers[name[0]](), reshape, picture, int(view.fixed.classes[0]))
        macs = cost(view.context.model, {view.batch.primary: (1, 3, 224, 224)}).macs.values()
        return cls(name, subject, view, sum(m or 0 for m in macs), plain(view.context.model, picture.numpy()), cold)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.view.probe().activations.shape[1:]

    def machine(self, rounds: int) -> tuple[float, float, float]:
        """FLOP/s of a large product, and seconds of a forward pass: alone, and for each picture of a batch of 16."""
        square = np.random.default_rng(0).random((GEMM, GEMM), np.float32)
        found = []
        with threadpool_limits(THREADS):
            for _ in range(rounds + 1):
                alone, batch = timed(partial(self.run, 1)), timed(partial(self.run, 16)) / 16
                found.append((2 * GEMM**3 / timed(lambda: square @ square), alone, batch))
        peak, alone, batch = (statistics.median(values) for values in zip(*found[1:], strict=True))
        return peak, alone, batch

    def rows(self, plan: Plan) -> Iterator[Row]:
        """Everything that is timed on this network."""
        subject, channels = self.subject, self.shape[0]
        if subject.reshape is None:
            cam = peers.torch_cam("CAM", subject)
            yield Row("cam", self.ours("cam"), "torch-cam", partial(peers.torch_cam_map, cam, subject), plan.fast)
            cam.remove_hooks()
        for method, peer, params in (
            ("eigen-cam", "EigenCAM", {"centre": "true"}),
            ("kpca-cam", "KPCA_CAM", {}),
            ("fem", "FEM", {"variant": "grad-cam"}),
        ):
            extractor = peers.grad_cam(peer, subject)
            theirs = partial(peers.grad_cam_map, extractor, subject)
            yield Row(method, self.ours(method, params), "grad-cam", theirs, plan.fast)
        yield Row("recipro-cam", self.ours("recipro-cam"), rounds=plan.fast)
        some = min(plan.channels, channels)
        extractor = peers.grad_cam("AblationCAM", subject)
        theirs = partial(peers.grad_cam_raw, extractor, subject, some)
        share = some / channels
        yield Row("ablation-cam", self.ours("ablation-cam"), "grad-cam", theirs, plan.slow, 1.0, share)
        if subject.reshape is None:
            run = self.ours("ablation-cam", runs=True)
            yield Row("ablation-cam by tail runs", run, rounds=plan.slow)
        mine = self.ours("score-cam", LOGIT, channels=some)
        theirs = partial(peers.grad_cam_raw, peers.grad_cam("ScoreCAM", subject), subject, some)
        yield Row("score-cam", mine, "grad-cam", theirs, plan.slow, share, share, passes=some + 2)
        extractor = peers.torch_cam("ScoreCAM", subject)
        theirs = partial(peers.torch_cam_raw, extractor, subject, some)
        yield Row("score-cam", mine, "torch-cam", theirs, plan.slow, share, share)
        extractor.remove_hooks()
        yield from self.black_boxes(plan)

    def black_boxes(self, plan: Plan) -> Iterator[Row]:
        """Methods that perturb the picture, whatever the layers."""
        subject = self.subject
        window, stride = plan.window
        theirs: Callable[[], object] = partial(peers.captum_occlusion, subject, window, stride)
        mine = self.ours("occlusion", {"window": str(window), "stride": str(stride), **FILL})
        yield Row("occlusion", mine, "captum", theirs, plan.slow)
        size, count = subject.picture.shape[2:], plan.samples
        masks = draw(np.random.default_rng(0), count, 7, 0.5, (size[0], size[1])).make(np.arange(count))
        theirs = partial(peers.loop_rise, subject, masks, 0.5)
        yield Row("rise", self.ours("rise", {"masks": str(count), **FILL}), "torch loop", theirs, plan.slow)
        labels = grid((size[0], size[1]), 16)
        shown = np.random.default_rng(0).integers(0, 2, (count, 16)).astype(np.float32)
        given = {"samples": str(count), "segments": "16", **CELLS}
        theirs = partial(peers.captum_lime, subject, labels, shown, 0.25, 1.0)
        yield Row("lime", self.ours("lime", given), "captum", theirs, plan.slow)
        theirs = partial(peers.captum_kernel_shap, subject, labels, count)
        yield Row("kernel-shap", self.ours("kernel-shap", given), "captum", theirs, plan.slow)

    def ours(
        self, method: str, params: dict[str, str] | None = None, *, channels: int | None = None, runs: bool = False
    ) -> Callable[[], object]:
        """One explanation from the picture to a map of its size in [0, 1]; only the sessions are kept.

        `channels` limits it to the first ones; `runs` hides that the tail is linear.
        """

        def explained() -> object:
            view = self.view.of(replace(self.view.batch), settled=None)  # nothing is known of a new batch
            if channels is not None:
                values = on_channels(view.probe(), method, channels, params or {})[None]
            else:
                values = methods.attribute(view, method, params or {}).values
            size = (self.subject.picture.shape[2], self.subject.picture.shape[3])
            return normalise(resize(np.maximum(values, 0), size))[0]

        if not runs:
            return explained

        def explained_by_runs() -> object:
            linear = Probe.linear_weights
            Probe.linear_weights = lambda self: None  # type: ignore[method-assign]
            try:
                return explained()
            finally:
                Probe.linear_weights = linear  # type: ignore[method-assign]

        return explained_by_runs


def seen(file: Path, picture: np.ndarray) -> Scene:
    """A file and a picture as our methods see them: the default layer, the class that the network finds."""
    model = read(file)
    name = model.inputs[0].name
    batch = Batch({name: picture}, name, ("made up",), (None,), (None,), None, None, ())
    return methods.scene(model, batch, make_engine=lambda m: Engine(m, threads=THREADS))


def plain(model: Model, picture: np.ndarray) -> Callable[[int], object]:
    """onnxruntime alone on the same file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = model.inputs[0].name
    feeds = {count: {name: np.repeat(picture, count, 0)} for count in (1, 16)}
    return lambda count: session.run(None, feeds[count])


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call; of the second of two where they are short."""
    time.sleep(PAUSE)
    for _ in range(2):
        start = time.perf_counter()
        action()
        seconds = time.perf_counter() - start
        if seconds > SHORT:
            break
    return seconds
