"""How other tools explain the same network: pytorch-grad-cam, torch-cam and Captum, each called as its users do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

try:
    import torchvision  # noqa: F401
except ImportError:
    sys.path.append(str(Path(__file__).parent / "stubs"))

import captum.attr
import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
import tqdm
from captum._utils.models.linear_model import SkLearnRidge
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

Map = NDArray[np.float32]
tqdm.tqdm = partial(tqdm.tqdm, disable=True)  # pytorch-grad-cam's progress bars can't be switched off otherwise
BATCH = 16  # variants that a peer runs at once: more are no faster


@dataclass(frozen=True)
class Subject:
    """What is explained: a network, its layer, one picture and one class.

    Attributes
    ----------
    reshape : callable or None
        Makes maps (N, K, h, w) of the layer's tokens; None where it gives maps already.
    """

    net: nn.Module
    layer: nn.Module
    reshape: Callable[[Tensor], Tensor] | None
    picture: Tensor  # (1, 3, H, W)
    target: int


def maps_of_tokens(tokens: Tensor) -> Tensor:
    """Patch tokens (N, 1 + h * w, K) as maps (N, K, h, w), h = w; the class token is left out."""
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def grad_cam(name: str, subject: Subject) -> Any:
    """One of pytorch-grad-cam's extractors."""
    options = {}
    if name == "AblationCAM" and subject.reshape is not None:
        options["ablation_layer"] = pytorch_grad_cam.ablation_layer.AblationLayerVit()
    extractor = getattr(pytorch_grad_cam, name)(
        subject.net, [subject.layer], reshape_transform=subject.reshape, **options
    )
    extractor.batch_size = BATCH
    return extractor


def grad_cam_map(extractor: Any, subject: Subject) -> Map:
    """The usual call: a map of the picture's size, in [0, 1]."""
    return extractor(subject.picture, [ClassifierOutputTarget(subject.target)])[0]


def grad_cam_raw(extractor: Any, subject: Subject, channels: int | None = None) -> Map:
    """The map before ReLU, scaling and resizing, (h, w), made of the first channels only if so asked."""
    targets = [ClassifierOutputTarget(subject.target)]
    with torch.no_grad():
        extractor.activations_and_grads(subject.picture)
        activations = extractor.activations_and_grads.activations[0].numpy()[:, :channels]
        return extractor.get_cam_image(subject.picture, subject.layer, targets, activations, None, False)[0]


@contextmanager
def half_pixel() -> Iterator[None]:
    """Within, torch's UpsamplingBilinear2d has half-pixel centres instead of aligned corners."""
    own = torch.nn.UpsamplingBilinear2d
    torch.nn.UpsamplingBilinear2d = lambda size: nn.Upsample(size, mode="bilinear")  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.nn.UpsamplingBilinear2d = own  # type: ignore[misc]


def torch_cam(name: str, subject: Subject, **options: Any) -> Any:
    """One of torch-cam's extractors: hooks stay until it is left (``with``)."""
    if name != "CAM":
        options["batch_size"] = BATCH
    else:
        options["fc_layer"] = subject.net.fc
    return getattr(torchcam.methods, name)(subject.net, subject.layer, reshape_transform=subject.reshape, **options)


def torch_cam_map(extractor: Any, subject: Subject, *, raw: bool = False) -> Map:
    """The usual calls: a map of the layer's size; in [0, 1] unless `raw`."""
    with torch.inference_mode():
        scores = subject.net(subject.picture)
        return extractor(subject.target, scores, normalized=not raw)[0][0].numpy()


def torch_cam_raw(extractor: Any, subject: Subject, channels: int) -> Map:
    """The raw map made of the layer's first channels only, (h, w)."""
    with torch.inference_mode():
        subject.net(subject.picture)
        extractor.hook_a = [activation[:, :channels].clone() for activation in extractor.hook_a]
        return extractor.compute_cams(subject.target, normalized=False)[0][0].numpy()


class SameNoise:
    """Takes the place of torch-cam's distribution: gives out given noise, one draw after the other."""

    def __init__(self, draws: Sequence[Map]) -> None:
        self.draws = iter(draws)

    def sample(self, size: Sequence[int]) -> Tensor:
        return torch.from_numpy(next(self.draws)).expand(*size)


def captum_occlusion(subject: Subject, window: int, stride: int) -> Map:
    """Captum's occlusion, (H, W); it works on channels too, which are covered together here."""
    explained = captum.attr.Occlusion(subject.net).attribute(
        subject.picture,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        target=subject.target,
        perturbations_per_eval=BATCH,
    )
    return explained[0, 0].detach().numpy()


def captum_lime(subject: Subject, labels: NDArray[np.intp], shown: Map, width: float, ridge: float) -> Map:
    """Captum's LIME over given samples (S, M) of superpixels (H, W), weighted as LIME's image explainer does."""
    samples = iter(torch.from_numpy(shown))

    def nearness(original: Tensor, perturbed: Tensor, z: Tensor, **_: Any) -> Tensor:
        distance = 1 - z.float().mean().sqrt()  # cosine distance to all ones
        return torch.exp(-(distance**2) / (2 * width**2))

    explainer = captum.attr.Lime(
        subject.net,
        interpretable_model=SkLearnRidge(alpha=ridge),
        similarity_func=nearness,
        perturb_func=lambda *_, **__: next(samples)[None],
    )
    return _over(explainer, subject, labels, n_samples=len(shown), perturbations_per_eval=BATCH)


def captum_kernel_shap(subject: Subject, labels: NDArray[np.intp], samples: int) -> Map:
    """Captum's KernelSHAP: coalitions drawn at random, the ends' weight a large number."""
    torch.manual_seed(0)
    explainer = captum.attr.KernelShap(subject.net)
    return _over(explainer, subject, labels, n_samples=samples, perturbations_per_eval=BATCH)


def captum_shapley(subject: Subject, labels: NDArray[np.intp]) -> Map:
    """Exact Shapley values, by all orders of the superpixels."""
    return _over(captum.attr.ShapleyValues(subject.net), subject, labels, perturbations_per_eval=BATCH)


def _over(explainer: Any, subject: Subject, labels: NDArray[np.intp], **options: Any) -> Map:
    mask = torch.from_numpy(np.ascontiguousarray(labels, np.int64))[None, None]
    with torch.no_grad():
        explained = explainer.attribute(subject.picture, target=subject.target, feature_mask=mask, **options)
    return explained[0, 0].detach().numpy()


def loop_rise(subject: Subject, masks: Map, keep: float) -> Map:
    """RISE as a loop over batches: none of the three tools has it."""
    scores = []
    with torch.inference_mode():
        for start in range(0, len(masks), BATCH):
            shown = torch.from_numpy(masks[start : start + BATCH, None])
            scores.append(subject.net(subject.picture * shown)[:, subject.target].numpy())
    values = np.concatenate(scores).astype(np.float64)
    return np.asarray(values.mean() + np.tensordot(values - values.mean(), masks, 1) / (len(masks) * keep), np.float32)
