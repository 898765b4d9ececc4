"""What of a model is captured, and in which portions: all that decides a capture's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from onnx_inspect.analysis.pooling import Pool
from onnx_inspect.graph.model import Layer, Model

PORTION = 64 * 2**20  # bytes of activations, as the model gives them, that exist at one time
MOST, USUAL = 256, 32  # samples that are run together at most; what engines take at one time
SHARD = 4096  # samples in a shard at most
SHARD_WORK = 100e9  # multiply-accumulates of a shard, a second or two: what is lost at most by an interruption
SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a capture holds; equal plans give equal captures, bit for bit.

    Attributes
    ----------
    model, data : str
        Digests of the model file and of the data set.
    layers, tensors : tuple of str
        Names of the layers, and of what they make.
    pool : str
    scores : str
        The output that the predictions are read from; "" where the model scores no classes.
    samples : int
        How many the data set has, broken ones included.
    shard, portion : int
        Samples of the data set in each shard, and run together.
    settings : tuple of (str, str)
        How the model is fed and run: preprocess, provider, threads, versions.
    """

    model: str
    data: str
    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    pool: Pool
    scores: str
    samples: int
    shard: int
    portion: int
    settings: tuple[tuple[str, str], ...]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return math.ceil(self.samples / self.shard)

    def places(self, shard: int) -> range:
        """Places in the data set that a shard holds."""
        return range(shard * self.shard, min((shard + 1) * self.shard, self.samples))

    def portions(self, shard: int) -> list[range]:
        """A shard's places, as they are run together."""
        all_of = self.places(shard)
        return [range(at, min(at + self.portion, all_of.stop)) for at in range(all_of.start, all_of.stop, self.portion)]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"settings": dict(self.settings)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Read what :meth:`to_json` wrote."""
        known = {field.name: values[field.name] for field in fields(cls)}
        known |= {name: tuple(known[name]) for name in ("layers", "tensors")}
        return cls(**known | {"settings": tuple(known["settings"].items())})

    def difference(self, other: Plan) -> str:
        """What tells two plans apart, in words; "" where nothing does."""
        one, two = self.to_json(), other.to_json()
        one, two = ({**v, **v["settings"]} for v in (one, two))
        words = {"model": "another model", "data": "another data set", "samples": "another data set"}
        for key in [*one, *two]:
            if key != "settings" and one.get(key) != two.get(key):
                return words.get(key, f"{key} {one.get(key)!r}, not {two.get(key)!r}")
        return ""


def portion(model: Model, layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many samples to run together: as many as fit, whatever is kept of them."""
    inputs = [shapes.get(spec.name, ()) for spec in model.inputs]
    held = 4 * sum(math.prod(shape) for shape in (*(shapes.get(la.output.name, ()) for la in layers), *inputs))
    count = int(np.clip(PORTION // max(held, 1), 1, MOST))
    return count if count < USUAL else count // USUAL * USUAL


def shard(count: int, width: int, macs: int) -> int:
    """How many samples make a shard: whole portions of `count`, about a second's work, and not too many bytes.

    Parameters
    ----------
    width : int
        Bytes that are kept of one sample.
    macs : int
        Multiply-accumulates that one sample takes.
    """
    most = min(SHARD, int(SHARD_WORK // max(macs, 1)), SHARD_BYTES // max(width, 1))
    return max(1, most // count) * count


def shared(count: int, samples: int, least: int) -> int:
    """How many samples make a shard so that there are at least so many shards: whole portions of `count`."""
    return max(1, samples // least // count) * count if least > 1 else SHARD
