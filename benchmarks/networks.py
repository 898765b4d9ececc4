"""Topologies in plain torch, with random weights and batch statistics calibrated so that activations live."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    expansion = 1

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = shortcut(inside, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which takes the stride) and 1x1 convolutions, and a shortcut."""

    expansion = 4

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = shortcut(inside, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def shortcut(inside: int, outside: int, stride: int) -> nn.Module:
    if stride == 1 and inside == outside:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))


class ResNet(nn.Module):
    """ResNet-18 (basic blocks, 1.81 GMAC at 224x224) or ResNet-50 (bottlenecks, 4.09 GMAC), 1000 classes."""

    def __init__(self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, inside = [], 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (depth - 1)
            blocks = []
            for stride in strides:
                blocks.append(block(inside, width, stride))
                inside = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inside, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project (Sandler et al. 2018)."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inside * expansion
        expand = [] if expansion == 1 else [conv_bn_relu(inside, width, 1)]
        self.conv = nn.Sequential(
            *expand,
            conv_bn_relu(width, width, 3, stride, groups=width),
            nn.Conv2d(width, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.joined = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.joined else self.conv(x)


def conv_bn_relu(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU6())


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1: 3.5 M parameters, 0.30 GMAC at 224x224, last maps 1280 x 7 x 7."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        layers, inside = [conv_bn_relu(3, 32, 3, 2)], 32
        for expansion, outside, repeats, stride in self.STAGES:
            for i in range(repeats):
                layers.append(InvertedResidual(inside, outside, stride if i == 0 else 1, expansion))
                inside = outside
        self.features = nn.Sequential(*layers, conv_bn_relu(inside, 1280, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))


class Block(nn.Module):
    """A transformer block, normalised before attention and before its two layers (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(count, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).reshape(count, tokens, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViTTiny(nn.Module):
    """ViT-Tiny/16: 12 blocks of 192 channels and 3 heads, a class token, 1.26 GMAC at 224x224."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 16, 16)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, 192))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 197, 192))
        self.blocks = nn.Sequential(*(Block(192, 3) for _ in range(12)))
        self.norm = nn.LayerNorm(192, 1e-6)
        self.head = nn.Linear(192, 1000)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), patches], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


UNTRAINED: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet(BasicBlock, (2, 2, 2, 2)),
    "resnet50": lambda: ResNet(Bottleneck, (3, 4, 6, 3)),
    "mobilenet_v2": MobileNetV2,
    "vit_tiny": ViTTiny,
}


def resnet18(seed: int = 0) -> nn.Module:
    return calibrated("resnet18", seed)


def pictures(count: int, seed: int) -> Tensor:
    """Made-up pictures (count, 3, 224, 224): noise at all scales, coarse strongest, as photographs have it."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, 224, 224)
    for side in (3, 7, 14, 28, 56, 112, 224):
        noise = torch.randn(count, 3, side, side, generator=generator)
        total += F.interpolate(noise, (224, 224), mode="bilinear", align_corners=False) / side**0.5
    return (total - total.mean((2, 3), keepdim=True)) / total.std((2, 3), keepdim=True)


def calibrated(name: str, seed: int = 0) -> nn.Module:
    """Random weights; batch statistics from eight made-up pictures, so that activations neither explode nor die."""
    torch.manual_seed(seed)
    net = UNTRAINED[name]().train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(pictures(8, seed + 1))
    return net.eval()
