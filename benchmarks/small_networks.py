"""Small networks of four kinds, trained for a moment on drawn shapes so that biases live and values are distinct."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.networks import BasicBlock, Block, InvertedResidual, conv_bn_relu
from fixtures import shapes

SIDE, CLASSES = 64, 6
STEPS, BATCH = 60, 32


class ResNet(nn.Module):
    """ResNet-18 with an eighth of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        blocks, inside = [], 8
        for width, stride in ((8, 1), (16, 2), (32, 2), (64, 2)):
            blocks += [BasicBlock(inside, width, stride), BasicBlock(width, width, 1)]
            inside = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inside, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1))


class MobileNet(nn.Module):
    """MobileNetV2 with a quarter of its channels and half of its blocks."""

    def __init__(self) -> None:
        super().__init__()
        layers, inside = [conv_bn_relu(3, 8, 3, 2)], 8
        for expansion, width, repeats, stride in (
            (1, 8, 1, 1),
            (6, 12, 2, 2),
            (6, 16, 2, 2),
            (6, 24, 2, 2),
            (6, 32, 1, 1),
        ):
            for i in range(repeats):
                layers.append(InvertedResidual(inside, width, stride if i == 0 else 1, expansion))
                inside = width
        self.features = nn.Sequential(*layers, conv_bn_relu(inside, 96, 1))
        self.fc = nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


class ViT(nn.Module):
    """A third of ViT-Tiny: six blocks of 48 channels and three heads, patches of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 48, 8, 8)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, 48))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (SIDE // 8) ** 2 + 1, 48))
        self.blocks = nn.Sequential(*(Block(48, 3) for _ in range(6)))
        self.norm = nn.LayerNorm(48, 1e-6)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), patches], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class Inception(nn.Module):
    """Parallel branches of equal shapes, whose order exporters and optimisers choose."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 12, 3, 2)
        self.mixed = nn.ModuleList(self._branches(width) for width in (12, 48, 48))
        self.fc = nn.Linear(48, CLASSES)

    @staticmethod
    def _branches(inside: int) -> nn.ModuleList:
        def plain(kernel: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(inside, 12, kernel, padding=kernel // 2), nn.ReLU())

        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inside, 12, 1), nn.ReLU())
        deep = nn.Sequential(nn.Conv2d(inside, 12, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
        return nn.ModuleList([plain(1), plain(3), deep, pooled])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branches in self.mixed:
            x = F.max_pool2d(torch.cat([branch(x) for branch in branches], 1), 2)
        return self.fc(x.mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": ResNet,
    "mobilenet": MobileNet,
    "vit": ViT,
    "inception": Inception,
}


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Drawn shapes as the networks take them, (count, 3, 64, 64), and their classes."""
    drawn, labels, _ = shapes.draw(np.random.default_rng(seed), count)
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.as_tensor(labels)


def trained(name: str, seed: int = 0, *, steps: int = STEPS, start: nn.Module | None = None) -> nn.Module:
    """Train a network for some steps, from `start` or from scratch."""
    torch.manual_seed(seed)
    net = NETWORKS[name]() if start is None else start
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    net.train()
    for step in range(steps):
        x, y = pictures(BATCH, 1000 * seed + step)
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def exported(net: nn.Module, *, dynamo: bool = False) -> onnx.ModelProto:
    """A network as ONNX with an open batch, by either of torch's exporters."""
    sample, file = pictures(2, 5)[0], io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes_ = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(
                net, (sample,), dynamo=True, opset_version=18, dynamic_shapes=shapes_, verbose=False
            )
            return program.model_proto
        axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
        names = {"input_names": ["input"], "output_names": ["logits"], "dynamic_axes": axes}
        torch.onnx.export(net, (sample,), file, dynamo=False, opset_version=17, **names)
    return onnx.load_from_string(file.getvalue())


def built(folder: Path, name: str, seed: int = 0, *, dynamo: bool = False) -> Path:
    """The file of a trained network, made where it is missing."""
    path = folder / f"{name}-{seed}{'-dynamo' if dynamo else ''}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        net = trained(name, seed)
        for way in (False, True):
            onnx.save(exported(net, dynamo=way), folder / f"{name}-{seed}{'-dynamo' if way else ''}.onnx")
    return path
