"""What is kept of a layer's values to tell later whether it still gives them: a few sums with random signs, statistics.

A count sketch (M. Charikar, K. Chen, M. Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002): every
value is added, with a sign, to one of 64 sums, both drawn from its place. It is linear, so that the sketch of a
difference is the difference of the sketches, and its squared length estimates the values' own. No value can
be read back from it.
"""

from __future__ import annotations

import base64
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.statistics import Running
from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import Layer, TensorSpec

Floats = NDArray[np.float64]
BUCKETS = 64  # the relative error of an estimated length is about sqrt(2 / 64) / 2 = 9 %
SHARES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)  # quantiles kept
SAMPLED = 1 << 14  # values that quantiles are taken of, over all inputs
GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class Sketch:
    """What is kept of one tensor over all inputs.

    Attributes
    ----------
    name : str
        The layer's, or the tensor's where it is an input.
    tensor : str
    op_type : str
        "" of an input.
    shape : tuple of int
        For one sample, its batch axis left out.
    dtype : str
    sums : ndarray, (64,), float64
        Sums of values with random signs; what isn't finite counts as 0.
    quantiles : tuple of float
        At 0, 1, 10, 25, 50, 75, 90, 99 and 100 % of up to 16,384 values: the same in every layout.
    mean, std : float
    nan, inf : int
    """

    name: str
    tensor: str
    op_type: str
    shape: tuple[int, ...]
    dtype: str
    sums: Floats
    quantiles: tuple[float, ...]
    mean: float
    std: float
    nan: int
    inf: int

    @property
    def length(self) -> float:
        """Estimate of the Euclidean length of all values."""
        return float(np.linalg.norm(self.sums))

    def to_json(self) -> dict[str, Any]:
        """About 600 bytes; the sums are float32 in base64."""
        return {
            "name": self.name,
            "tensor": self.tensor,
            "op_type": self.op_type,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "sums": base64.b64encode(self.sums.astype("<f4").tobytes()).decode(),
            "quantiles": [_short(q) for q in self.quantiles],
            "mean": _short(self.mean),
            "std": _short(self.std),
            "nan": self.nan,
            "inf": self.inf,
        }


def from_json(data: dict[str, Any]) -> Sketch:
    """Read what :meth:`Sketch.to_json` gives.

    Raises
    ------
    KeyError, TypeError, ValueError
        It isn't that.
    """
    sums = np.frombuffer(base64.b64decode(data["sums"], validate=True), "<f4").astype(np.float64)
    quantiles = tuple(float(q) for q in data["quantiles"])
    if len(sums) != BUCKETS or len(quantiles) != len(SHARES):
        raise ValueError(f"{len(sums)} sums and {len(quantiles)} quantiles")
    return Sketch(
        name=str(data["name"]),
        tensor=str(data["tensor"]),
        op_type=str(data["op_type"]),
        shape=tuple(int(d) for d in data["shape"]),
        dtype=str(data["dtype"]),
        sums=sums,
        quantiles=quantiles,
        mean=float(data["mean"]),
        std=float(data["std"]),
        nan=int(data["nan"]),
        inf=int(data["inf"]),
    )


class Sketcher:
    """Takes a tensor's values part by part; the sketch doesn't depend on how the samples were parted."""

    def __init__(self, name: str, op_type: str, spec: TensorSpec, samples: int, seed: int) -> None:
        self.name, self.op_type, self.spec, self.seed = name, op_type, spec, seed
        self.room = max(len(SHARES), SAMPLED // max(samples, 1))
        self.running = Running(Layer(name, op_type, spec, 0))
        self.sums = np.zeros(BUCKETS)
        self.kept: list[NDArray[Any]] = []
        self.shape: tuple[int, ...] | None = None
        self.seen = 0

    def add(self, values: NDArray[Any]) -> None:
        """Add the next samples, (n, ...).

        Raises
        ------
        InputError
            Their shape is another than that of the samples before.
        """
        values = values.astype(np.float32) if values.dtype == np.float16 else values
        self.shape = values.shape[1:] if self.shape is None else self.shape
        if values.shape[1:] != self.shape:
            raise InputError(f"{self.name!r} gives {self.shape} for some inputs and {values.shape[1:]} for others")
        self.running.add(values, len(values))
        for sample in values.reshape(len(values), -1):
            self.sums += count_sketch(sample, self.seed + self.seen)
            places = np.linspace(0, sample.size - 1, min(self.room, sample.size)).astype(np.intp)
            self.kept.append(sample[places])
            self.seen += 1

    def sketch(self) -> Sketch:
        """What is kept of all samples so far."""
        found = self.running.result()
        kept = np.concatenate(self.kept).astype(np.float64) if self.kept else np.zeros(0)
        kept = kept[np.isfinite(kept)]
        return Sketch(
            name=self.name,
            tensor=self.spec.name,
            op_type=self.op_type,
            shape=self.shape or (),
            dtype=found.dtype,
            sums=self.sums.copy(),
            quantiles=tuple(np.quantile(kept, SHARES).tolist()) if kept.size else (0.0,) * len(SHARES),
            mean=found.mean or 0.0,
            std=found.std or 0.0,
            nan=found.nan,
            inf=found.inf,
        )


def count_sketch(values: NDArray[Any], seed: int) -> Floats:
    """Sums of values with random signs, (64,), float64; NaN and infinity count as 0.

    The bucket and the sign of a place come from SplitMix64 of its number and the seed, so that they are the same
    on every machine and with every version of numpy.
    """
    buckets, signs = _places(values.size, seed)
    real = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.bincount(buckets, real * signs, BUCKETS), np.float64)


def relative_distance(one: Sketch, other: Sketch) -> float:
    """Estimate of ``|x - y| / |x|`` of two tensors laid out alike: infinite where only x is 0 throughout."""
    apart = float(np.linalg.norm(one.sums - other.sums))
    if not apart:
        return 0.0
    return apart / one.length if one.length else math.inf


def cosine(one: Sketch, other: Sketch) -> float:
    """Estimate of the cosine of two tensors laid out alike, in [-1, 1]; 0 where one of them is 0 throughout."""
    scale = one.length * other.length
    return float(np.clip(one.sums @ other.sums / scale, -1, 1)) if scale else float(one.length == other.length)


def quantile_distance(one: Sketch, other: Sketch) -> float:
    """Largest difference of two tensors' quantiles, as a part of the first one's largest magnitude: blind to layout."""
    apart = max(abs(a - b) for a, b in zip(one.quantiles, other.quantiles, strict=True))
    if not apart:
        return 0.0
    scale = max(abs(q) for q in one.quantiles)
    return apart / scale if scale else math.inf


@functools.lru_cache(maxsize=8)
def _places(size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Bucket and sign of each place."""
    mixed = _mix(np.arange(size, dtype=np.uint64) + np.uint64((seed * GOLDEN) % 2**64))
    buckets = (mixed % np.uint64(BUCKETS)).astype(np.uint8)
    return buckets, np.where(mixed >> np.uint64(63), 1, -1).astype(np.int8)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014."""
    x = x * np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _short(value: float) -> float:
    """Nine significant digits: more than float32 has."""
    return float(f"{value:.9g}")
