"""Do our maps agree with other tools' on the same weights, picture, layer and class?

``cosine`` and ``correlation`` (cosine of the centred maps) compare raw maps: before ReLU, scaling and resizing. Maps of
positive activations have high cosines whatever their weights, so ``baseline`` shows what the class-blind mean
activation would have scored: read a correlation against it, not against 0. ``difference`` is the largest one, as a
share of the peer's range, after the best scaling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.peers import Map, Subject
from onnx_inspect import discover, methods
from onnx_inspect.cam._grids import draw
from onnx_inspect.cam._probe import Probe, parse_params
from onnx_inspect.cam._superpixels import grid
from onnx_inspect.scene import Scene

LOGIT = {"score": "logit"}  # what the peers read, whatever our defaults
FILL = {**LOGIT, "fill": "zero"}
CELLS = {**FILL, "segmentation": "grid"}
HEADER = ("method", "peer", "cosine", "correlation", "difference", "baseline", "what is compared")


@dataclass(frozen=True)
class Pair:
    """Our map and a peer's; `signless` where the peer's sign is arbitrary."""

    method: str
    peer: str
    ours: Map
    theirs: Map
    note: str
    signless: bool = False


def rows(pairs: list[Pair], mean: Map) -> list[tuple[str, ...]]:
    """Lines of the table; `mean` is the mean activation, for the baseline."""
    lines = []
    for pair in pairs:
        ours, theirs = pair.ours.astype(np.float64).ravel(), pair.theirs.astype(np.float64).ravel()
        if pair.signless and np.dot(centred(ours), centred(theirs)) < 0:
            theirs = -theirs
        scale = np.dot(ours, theirs) / (np.dot(ours, ours) or 1.0)
        difference = np.abs(scale * ours - theirs).max() / (np.ptp(theirs) or 1.0)
        figures = (cosine(ours, theirs), cosine(centred(ours), centred(theirs)))
        blind = mean.ravel() if mean.size == theirs.size else None
        baseline = "-" if blind is None else f"{cosine(centred(blind), centred(theirs)):.3f}"
        lines.append((pair.method, pair.peer, *(f"{f:.6f}" for f in figures), f"{difference:.1e}", baseline, pair.note))
    return lines


def centred(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values - values.mean(), np.float64)


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.dot(a, b) / ((np.linalg.norm(a) * np.linalg.norm(b)) or 1.0))


def ours(view: Scene, method: str, channels: int | None = None, **params: object) -> Map:
    """Our raw map, (h, w) or (H, W), made of the layer's first channels only if so asked."""
    given = {name: str(value) for name, value in params.items()}
    if channels is None:
        return methods.attribute(view, method, given).values[0]
    return on_channels(view.probe(), method, channels, given)


def on_channels(probe: Probe, method: str, channels: int, params: dict[str, str]) -> Map:
    module = discover.load(methods.METHODS, method)
    seen = replace(probe, activations=np.ascontiguousarray(probe.activations[:, :channels]))
    return module.attribute(seen, parse_params(module.Params, params, method))[0]


def cheap(view: Scene, subject: Subject, channels: int) -> Iterator[Pair]:
    """What any model can be compared on, in a few passes."""
    if subject.reshape is None:
        with peers.torch_cam("CAM", subject) as extractor:
            theirs = peers.torch_cam_map(extractor, subject, raw=True)
        yield Pair("cam", "torch-cam", ours(view, "cam"), theirs, "same formula")
    components = peers.grad_cam_raw(peers.grad_cam("EigenCAM", subject), subject)
    centre = ours(view, "eigen-cam", centre=True)
    yield Pair("eigen-cam centre=true", "grad-cam", centre, components, "same formula; sign left free", True)
    yield Pair(
        "eigen-cam",
        "grad-cam",
        ours(view, "eigen-cam"),
        components,
        "grad-cam centres channels, the paper doesn't",
        True,
    )
    theirs = peers.grad_cam_raw(peers.grad_cam("AblationCAM", subject), subject, channels)
    lowest = view.probe().activations.min()
    note = "same formula: the layer's minimum is 0" if lowest == 0 else "grad-cam sets channels to min - 1e7, not to 0"
    yield Pair("ablation-cam", "grad-cam", ablated(view, channels), theirs, f"{note}; {channels} channels")
    yield from scored(view, subject, channels)


def ablated(view: Scene, channels: int) -> Map:
    """Our Ablation-CAM restricted to the first channels, by runs of the tail: the others keep their values."""
    probe = view.probe()
    of = np.zeros(channels, np.intp)

    def variants(positions: NDArray[np.intp]) -> Map:
        changed = np.repeat(probe.activations, len(positions), 0)
        changed[np.arange(len(positions)), positions] = 0
        return changed

    base = probe.base_scores()[0]
    weights = (base - probe.tail_scores(variants, of)) / abs(base)
    return np.tensordot(weights, probe.activations[0, :channels], 1).astype(np.float32)


def scored(view: Scene, subject: Subject, channels: int) -> Iterator[Pair]:
    """Score-CAM, on the first channels."""
    said = f"{channels} channels"
    mine = ours(view, "score-cam", channels, **LOGIT)
    with peers.torch_cam("ScoreCAM", subject) as extractor:
        theirs = peers.torch_cam_raw(extractor, subject, channels)
    yield Pair("score-cam", "torch-cam", mine, theirs, f"torch-cam scales masks before enlarging them; {said}")
    extractor = peers.grad_cam("ScoreCAM", subject)
    theirs = peers.grad_cam_raw(extractor, subject, channels)
    yield Pair("score-cam", "grad-cam", mine, theirs, f"grad-cam enlarges with aligned corners; {said}")
    with peers.half_pixel():
        theirs = peers.grad_cam_raw(extractor, subject, channels)
    yield Pair("score-cam", "grad-cam, half-pixel", mine, theirs, f"its enlarging replaced, the rest as it is; {said}")


def thorough(view: Scene, subject: Subject, channels: int, *, quick: bool) -> Iterator[Pair]:
    """What takes hundreds of passes, or a second layer: on ResNet-18 only."""
    for name, method, params in (("KPCA_CAM", "kpca-cam", {}), ("FEM", "fem", {"variant": "grad-cam"})):
        label = " ".join([method, *(f"{k}={v}" for k, v in params.items())])
        theirs = peers.grad_cam_raw(peers.grad_cam(name, subject), subject)
        note = "same formula; sign left free" if name == "KPCA_CAM" else "same formula"
        yield Pair(label, "grad-cam", ours(view, method, None, **params), theirs, note, name == "KPCA_CAM")
    inner = replace(subject, layer=subject.net.layer4[-1].bn2)  # before the ReLU: negative values
    signed = methods.scene(
        view.context.model, view.batch, layer="layer4.1.bn2", target=view.target, make_engine=view.sections.make_engine
    )
    theirs = peers.grad_cam_raw(peers.grad_cam("AblationCAM", inner), inner, channels)
    note = f"before a ReLU: grad-cam sets channels to min - 1e7, then lower still; {channels} channels"
    yield Pair("ablation-cam", "grad-cam", ablated(signed, channels), theirs, note)
    yield from smoothed(view, subject, min(channels, 16))
    yield from perturbed(view, subject, quick=quick)


def smoothed(view: Scene, subject: Subject, channels: int) -> Iterator[Pair]:
    """SS-CAM with the same noise, and IS-CAM, on the first channels and few samples."""
    samples = 4
    module = discover.load(methods.METHODS, "ss-cam")
    seed = int(np.random.default_rng(view.seed).integers(2**63))
    noise = [2.0 * module._noise(seed, i, (3, *subject.picture.shape[2:]), "mask") for i in range(samples)]
    with peers.torch_cam("SSCAM", subject, num_samples=samples) as extractor:
        extractor._distrib = peers.SameNoise(noise)
        theirs = peers.torch_cam_raw(extractor, subject, channels)
    note = f"the same noise; torch-cam scales masks before enlarging; {channels} channels, {samples} draws"
    yield Pair("ss-cam", "torch-cam", ours(view, "ss-cam", channels, samples=samples, **LOGIT), theirs, note)
    with peers.torch_cam("ISCAM", subject, num_samples=samples) as extractor:
        theirs = peers.torch_cam_raw(extractor, subject, channels)
    note = f"torch-cam scales masks before enlarging; {channels} channels, {samples} steps"
    yield Pair("is-cam", "torch-cam", ours(view, "is-cam", channels, steps=samples, **LOGIT), theirs, note)


def perturbed(view: Scene, subject: Subject, *, quick: bool) -> Iterator[Pair]:
    """Methods that know nothing of layers."""
    size = (subject.picture.shape[2], subject.picture.shape[3])
    window, stride = (56, 28) if quick else (32, 16)
    theirs = peers.captum_occlusion(subject, window, stride)
    mine = ours(view, "occlusion", window=window, stride=stride, **FILL)
    yield Pair(f"occlusion {window}/{stride}", "captum", mine, theirs, "same formula")
    count, samples = 16, 64
    labels = grid(size, count)
    seed = int(np.random.default_rng(view.seed).integers(2**63))
    shown = discover.load(methods.METHODS, "lime")._samples(np.random.default_rng(seed), samples, count)
    theirs = peers.captum_lime(subject, labels, shown, 0.25, 1.0)
    mine = ours(view, "lime", samples=samples, segments=count, **CELLS)
    yield Pair("lime", "captum", mine, theirs, f"the same {samples} samples of {count} rectangles, the same kernel")
    mine = ours(view, "kernel-shap", samples=64, segments=4, **CELLS)
    theirs = peers.captum_shapley(subject, grid(size, 4))
    note = "4 rectangles, all coalitions: against captum's exact Shapley values"
    yield Pair("kernel-shap", "captum, exact", mine, theirs, note)
    if not quick:
        mine = ours(view, "kernel-shap", samples=256, segments=count, **CELLS)
        theirs = peers.captum_kernel_shap(subject, labels, 256)
        yield Pair("kernel-shap", "captum", mine, theirs, "256 coalitions of 16 rectangles, each tool's own choice")
    masks = draw(np.random.default_rng(view.seed), 64, 7, 0.5, size)
    theirs = peers.loop_rise(subject, masks.make(np.arange(64)), 0.5)
    mine = ours(view, "rise", masks=64, estimator="centred", **FILL)
    yield Pair("rise", "torch loop", mine, theirs, "the same 64 masks; no peer has RISE")


def table(view: Scene, subject: Subject, channels: int, *, quick: bool, thoroughly: bool) -> list[tuple[str, ...]]:
    pairs = list(cheap(view, subject, channels))
    if thoroughly:
        pairs += thorough(view, subject, channels, quick=quick)
    return rows(pairs, ours(view, "mean-activation"))
