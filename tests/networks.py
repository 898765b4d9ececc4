"""Small networks of the kinds that people export, with random weights: what whole-model tests are run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outside)
    )


class Basic(nn.Module):
    """ResNet-18's block: two 3x3 convolutions beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = conv_bn(inside, outside, 3, stride), conv_bn(outside, outside)
        self.short = nn.Identity() if stride == 1 and inside == outside else conv_bn(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.short(x))


class Bottleneck(nn.Module):
    """ResNet-50's block: 1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = conv_bn(inside, outside // 2, 1), conv_bn(outside // 2, outside // 2, 3, stride)
        self.three, self.short = conv_bn(outside // 2, outside, 1), conv_bn(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.three(F.relu(self.two(F.relu(self.one(x))))) + self.short(x))


class ResNet(nn.Module):
    """Stem with an overlapping max pool, two stages, global average, one linear layer."""

    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = block(8, 8, 1), block(8, 16, 2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.pool(self.stem(x))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Inverted(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inside
        self.expand, self.depth = conv_bn(inside, wide, 1), conv_bn(wide, wide, 3, stride, wide)
        self.project, self.joined = conv_bn(wide, outside, 1), stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(F.relu6(self.depth(F.relu6(self.expand(x)))))
        return x + y if self.joined else y


class MobileNet(nn.Module):
    """MobileNetV2-like: inverted residuals, ReLU6, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.layer1, self.layer2, self.layer3 = Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu6(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class DenseNet(nn.Module):
    """DenseNet-like: each convolution sees all before it; an average pool between blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.dense = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, 4, 3, 1, 1)) for n in (8, 12)
        )
        self.layer1 = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2, 2))
        self.layer2 = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.dense:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.layer2(self.layer1(x))), (1, 1)).flatten(1))


class Squeezed(nn.Module):
    """EfficientNet's block: an inverted residual with SiLU whose channels are weighed by what they hold."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand, self.depth, self.project = conv_bn(width, 16, 1), conv_bn(16, 16, 5, 1, 16), conv_bn(16, width, 1)
        self.less, self.more = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.depth(F.silu(self.expand(x))))
        weights = torch.sigmoid(self.more(F.silu(self.less(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.project(y * weights)


class EfficientNet(nn.Module):
    """EfficientNet-like, with MobileNetV3's hard swish in its stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8, 3, 2), nn.Hardswish())
        self.layer1, self.layer2 = Squeezed(8), Squeezed(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.layer2(self.layer1(self.stem(x))), 1).flatten(1))


class ConvNeXtBlock(nn.Module):
    """A wide depthwise convolution, layer norm over channels moved last, two linear layers, a scale per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(width, width, 7, 1, 3, groups=width), nn.LayerNorm(width, 1e-6)
        self.one, self.two = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.two(F.gelu(self.one(y)))).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """ConvNeXt-like: patches by a strided convolution, two stages with a norm and a strided convolution between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer1 = nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8)
        self.norm, self.down, self.layer2 = nn.GroupNorm(2, 8), nn.Conv2d(8, 12, 2, 2), ConvNeXtBlock(12)
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.down(self.norm(self.layer1(self.stem(x)))))
        return self.head(self.last(x.mean((-2, -1))))


class Attention(nn.Module):
    """Self-attention of two heads, by PyTorch's own function."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        query, key, value = self.qkv(x).reshape(count, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(count, tokens, width))


class EncoderBlock(nn.Module):
    """A transformer block, normalised first; `mixer` is its attention."""

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mixer = nn.LayerNorm(width), nn.LayerNorm(width), mixer
        self.one, self.two = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.two(F.gelu(self.one(self.norm2(x)), approximate="tanh"))


class ViT(nn.Module):
    """Vision transformer: patches, a class token, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 17, 12))
        self.layer1, self.layer2 = EncoderBlock(12, Attention(12)), EncoderBlock(12, Attention(12))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.places
        return self.head(self.norm(self.layer2(self.layer1(tokens)))[:, 0])


class Windows(nn.Module):
    """Swin's attention: within windows of 4x4, shifted by `shift`, with a bias for each pair of places."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.shift, self.qkv, self.out = shift, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(2, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        count, height, wide, width = x.shape
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        x = x.reshape(count, height // 4, 4, wide // 4, 4, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, width)
        query, key, value = self.qkv(x).reshape(-1, 16, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(query @ key.transpose(-2, -1) * (width // 2) ** -0.5 + self.bias, -1)
        x = self.out((weights @ value).transpose(1, 2).reshape(-1, 16, width))
        x = x.reshape(count, height // 4, wide // 4, 4, 4, width).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(count, height, wide, width)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class Swin(nn.Module):
    """Swin-like: windows, shifted windows, patches merged by strided slices."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.layer1, self.layer2 = EncoderBlock(8, Windows(8, 0)), EncoderBlock(8, Windows(8, 2))
        self.merge, self.norm, self.head = nn.Linear(32, 16), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.patches(x).permute(0, 2, 3, 1)))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.head(self.norm(self.merge(torch.cat(parts, -1))).mean((1, 2)))


class UNet(nn.Module):
    """U-Net: down by pooling, up by a transposed convolution and by bilinear resizing, joined with what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.layer1 = conv_bn(3, 6), conv_bn(6, 8), conv_bn(8, 12)
        self.up, self.layer2 = nn.ConvTranspose2d(12, 8, 2, 2), conv_bn(16, 8)
        self.last, self.head = conv_bn(14, 6), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.one(x))
        second = F.relu(self.two(F.max_pool2d(first, 2)))
        deep = F.relu(self.layer1(F.max_pool2d(second, 2)))
        y = F.leaky_relu(self.layer2(torch.cat([self.up(deep), second], 1)), 0.1)
        y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(F.relu(self.last(torch.cat([y, first], 1))))


class Bert(nn.Module):
    """BERT-like: token, place and kind embeddings, two blocks normalised last, a mask, pooling by the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.norm = nn.Embedding(40, 12), nn.Embedding(16, 12), nn.LayerNorm(12)
        self.layer1 = nn.TransformerEncoderLayer(12, 2, 24, 0.1, "gelu", batch_first=True)
        self.layer2 = nn.TransformerEncoderLayer(12, 2, 24, 0.1, "gelu", batch_first=True)
        self.pool, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]])
        return self.head(torch.tanh(self.pool(self.layer2(self.layer1(x))[:, 0])))


class Recurrent(nn.Module):
    """A classifier of sequences: two directions of LSTM, then a GRU, the last state read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
        self.layer2, self.head = nn.GRU(12, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(x)[0])[0][:, -1])


@dataclass(frozen=True)
class Network:
    """How a network is made, what it is fed (integers below `tokens` where that isn't 0), and the module to look at."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 32, 32)
    tokens: int = 0
    layer: str = "layer1"

    def net(self, seed: int = 0) -> nn.Module:
        """The network in evaluation, its batch statistics those of random pictures."""
        torch.manual_seed(seed)
        net = self.make()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            net.train()(self.inputs(8, seed + 1))
        return net.eval()

    def inputs(self, count: int, seed: int = 2) -> Tensor:
        """Random inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(0, self.tokens, (count, *self.shape), generator=generator)
        return torch.randn(count, *self.shape, generator=generator)


NETWORKS = {
    "resnet18": Network(lambda: ResNet(Basic)),
    "resnet50": Network(lambda: ResNet(Bottleneck)),
    "mobilenet": Network(MobileNet, layer="layer2"),
    "densenet": Network(DenseNet),
    "efficientnet": Network(EfficientNet),
    "convnext": Network(ConvNeXt),
    "vit": Network(ViT),
    "swin": Network(Swin),
    "unet": Network(UNet),
    "bert": Network(Bert, shape=(7,), tokens=40),
    "recurrent": Network(Recurrent, shape=(6, 4), layer="layer2"),
}
