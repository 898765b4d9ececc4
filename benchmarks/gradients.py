"""How fast and how exact are our gradients against other tools', and do their maps agree?

    python benchmarks/gradients.py                            ResNet-18, ResNet-50 and MobileNetV2
    python benchmarks/gradients.py --models resnet18 --rounds 3

Three tables, on the same weights, in one run: speed (every round runs the plain forward pass, ours and the peer's one
after the other; ratios are made within a round, medians shown), agreement of raw maps, and error against PyTorch in
float64 beside PyTorch's own error in float32. The environment is that of `make bench`.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import attribution, peers  # noqa: E402
from benchmarks.stage import THREADS, Row, Stage  # noqa: E402
from onnx_inspect import methods  # noqa: E402

MODELS = ("resnet18", "resnet50", "mobilenet_v2")
STEPS = 8  # of integrated gradients, for everybody
GOALS = {"grad-cam": 4.0, "torch-cam": 1.5, "captum": 1.5}  # peer's time over ours
COSINE, EXACT = 0.9999, 2.0  # of maps; our error against float64, in PyTorch's own float32 errors
ON_LAYERS = ("grad-cam", "hires-cam", "xgrad-cam")
Map = NDArray[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"{THREADS} threads; {attribution.versions()}\n{attribution.load()} before the run\n")
    verdicts: list[tuple[str, ...]] = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage.of(name, Path(folder))
            verdicts += [*speed(stage, options.rounds), *agreement(stage), *exactness(stage)]
    print(f"{attribution.load()} after the run\n\n### Goals\n")
    attribution.table(("model", "what", "measured", "goal", "verdict"), verdicts)


@dataclass(frozen=True)
class Duel:
    """One of our methods and a peer's counterpart.

    Attributes
    ----------
    raw : callable
        The peer's map before ReLU, scaling and resizing, as ours is.
    usual : callable
        The peer's usual call, which is timed.
    rectified : bool
        Whether the peer gives no map without its ReLU.
    """

    method: str
    peer: str
    raw: Callable[[], Map]
    usual: Callable[[], object]
    params: tuple[tuple[str, str], ...] = ()
    rectified: bool = False


def duels(stage: Stage) -> Iterator[Duel]:
    """Everything that the peers have of ours; guided backpropagation only where all rectifiers are ReLUs."""
    subject = stage.subject
    for method, name in (("grad-cam", "GradCAM"), ("hires-cam", "HiResCAM"), ("xgrad-cam", "XGradCAM")):
        extractor = peers.grad_cam(name, subject)
        yield Duel(
            method, "grad-cam", partial(peer_raw, extractor, subject), partial(peers.grad_cam_map, extractor, subject)
        )
        extractor.activations_and_grads.release()
    torch_cam = peers.torchcam.methods.GradCAM(subject.net, subject.layer)
    run = partial(torch_cam_map, torch_cam, subject)
    yield Duel("grad-cam", "torch-cam", run, run, rectified=True)
    torch_cam.remove_hooks()
    attr = peers.captum.attr
    pairs: list[tuple[str, Any, Callable[[Map], Map], dict[str, Any]]] = [
        ("grad-cam", attr.LayerGradCam(subject.net, subject.layer), lambda a: a[0], {}),
        ("saliency", attr.Saliency(subject.net), lambda a: a.max(axis=0), {}),
        ("gradient-x-input", attr.InputXGradient(subject.net), lambda a: a.sum(axis=0), {}),
        ("integrated-gradients", attr.IntegratedGradients(subject.net), lambda a: a.sum(axis=0), STEPWISE),
    ]
    if any(isinstance(m, torch.nn.ReLU) for m in subject.net.modules()):
        pairs.append(("guided-backprop", attr.GuidedBackprop(subject.net), lambda a: np.abs(a).max(axis=0), {}))
    for method, explainer, shown, options in pairs:
        run = partial(captum_map, explainer, subject, shown, options)
        yield Duel(method, "captum", run, run, (("steps", str(STEPS)),) if options else ())


STEPWISE: dict[str, Any] = {"n_steps": STEPS, "method": "riemann_middle"}


def speed(stage: Stage, rounds: int) -> Iterator[tuple[str, ...]]:
    """Print a model's times; return how its goals were met."""
    print(f"### {stage.name}: speed, layer {stage.view.layer.name} {stage.shape}\n")
    lines, verdicts = [], []
    for duel in duels(stage):
        row = Row(duel.method, stage.ours(duel.method, dict(duel.params)), duel.peer, duel.usual, rounds)
        row.measure(partial(stage.run, 1))
        tool = attribution.TOOLS[duel.peer]
        times = (attribution.ms(row.ours_s()), f"{row.forwards():.2f}", tool, attribution.ms(row.theirs_s()))
        lines.append((duel.method, *times, f"{row.ratio():.2f}"))
        goal = GOALS[duel.peer]
        verdict = attribution.verdict(row.ratio(), goal, True)
        verdicts.append((stage.name, f"{duel.method}, {tool} / ours", f"{row.ratio():.2f}", f">= {goal}", verdict))
    attribution.table(("method", "ours, ms", "forward passes", "peer", "peer, ms", "peer / ours"), lines)
    yield from verdicts


def agreement(stage: Stage) -> Iterator[tuple[str, ...]]:
    """Print how alike raw maps are; return how the goal was met."""
    lines, verdicts = [], []
    for duel in duels(stage):
        ours = methods.attribute(stage.view, duel.method, dict(duel.params)).values[0].astype(np.float64)
        ours = np.maximum(ours, 0) if duel.rectified else ours
        theirs = duel.raw().astype(np.float64)
        found = float((ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum()))
        scale = float((ours * theirs).sum() / (ours**2).sum())
        tool = attribution.TOOLS[duel.peer]
        difference = float(np.abs(scale * ours - theirs).max() / np.abs(theirs).max())
        lines.append((duel.method, tool, f"{found:.8f}", f"{difference:.1e}"))
        if duel.method not in ON_LAYERS:
            continue  # float32's own errors are larger there: see the third table
        verdict = attribution.verdict(found, COSINE, True)
        verdicts.append((stage.name, f"{duel.method}, cosine with {tool}", f"{found:.6f}", f"> {COSINE}", verdict))
    print(f"### {stage.name}: agreement of raw maps\n")
    attribution.table(("method", "peer", "cosine", "largest difference"), lines)
    yield from verdicts


def exactness(stage: Stage) -> Iterator[tuple[str, ...]]:
    """Print errors against float64; return how the goal was met."""
    probe, subject = stage.view.probe(), stage.subject
    ours = probe.input_gradients(lambda rows: probe.inputs[rows], np.arange(1))[0].astype(np.float64)
    layer = probe.layer_gradients()[0].astype(np.float64)
    double = by_torch(copy.deepcopy(subject.net).double(), subject, stage.name)
    single = by_torch(subject.net, subject, stage.name)
    lines, verdicts = [], []
    for what, mine, own, truth in zip(("layer", "input"), (layer, ours), single, double, strict=True):
        errors = [float(np.linalg.norm(found - truth) / np.linalg.norm(truth)) for found in (mine, own)]
        ratio = errors[0] / errors[1]
        lines.append((f"gradient by the {what}", f"{errors[0]:.2e}", f"{errors[1]:.2e}", f"{ratio:.2f}"))
        verdict = attribution.verdict(ratio, EXACT, False)
        verdicts.append((stage.name, f"error of the {what}'s gradient", f"{ratio:.2f}", f"<= {EXACT}", verdict))
    print(f"### {stage.name}: error against float64, of the gradient's norm\n")
    attribution.table(("what", "ours", "PyTorch float32", "ratio"), lines)
    yield from verdicts


def by_torch(net: Any, subject: peers.Subject, name: str) -> tuple[Map, Map]:
    """Gradients by the explained layer and by the input."""
    kept: list[Any] = []
    place = dict(subject.net.named_modules())
    where = next(path for path, module in place.items() if module is subject.layer)
    hook = dict(net.named_modules())[where].register_forward_hook(lambda m, i, out: kept.append(out))
    x = subject.picture.to(next(net.parameters()).dtype).requires_grad_()
    score = net(x)[0, subject.target]
    hook.remove()
    return tuple(g[0].numpy().astype(np.float64) for g in torch.autograd.grad(score, [kept[0], x]))


def peer_raw(extractor: Any, subject: peers.Subject) -> Map:
    """pytorch-grad-cam's map before ReLU, scaling and resizing."""
    targets = [peers.ClassifierOutputTarget(subject.target)]
    extractor.uses_gradients = True
    outputs = extractor.activations_and_grads(subject.picture)
    subject.net.zero_grad()
    targets[0](outputs[0]).backward()
    kept = extractor.activations_and_grads
    activations, gradients = kept.activations[0].numpy(), kept.gradients[0].numpy()
    return extractor.get_cam_image(subject.picture, subject.layer, targets, activations, gradients, False)[0]


def torch_cam_map(extractor: Any, subject: peers.Subject) -> Map:
    """torch-cam's usual calls, without its scaling."""
    scores = subject.net(subject.picture.requires_grad_())
    return extractor(subject.target, scores, normalized=False)[0][0].detach().numpy()


def captum_map(explainer: Any, subject: peers.Subject, shown: Callable[[Map], Map], options: dict[str, Any]) -> Map:
    """Captum's usual call, its channels made one map."""
    picture = subject.picture.detach().clone()
    found = explainer.attribute(picture, target=subject.target, **options)
    return shown(found[0].detach().numpy())


if __name__ == "__main__":
    main()
