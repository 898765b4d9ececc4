"""What a comparison of two models found: pairs of tensors, outputs, the layer that causes the loss, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx_inspect.analysis.differences import Difference, OutputAgreement, Tolerance

SURE = 0.99  # cosine of outputs that agree, where no limit is given
FAR = 0.15  # relative error of outputs that don't agree, for instance by their scale, where no limit is given
SILENT = 1e-9  # share of a tensor's energy below which a difference is the order of sums


@dataclass(frozen=True)
class Limits:
    """What a comparison must keep to; None for what nobody asked.

    Attributes
    ----------
    tolerance : Tolerance or None
        Of every element of every matched tensor and output.
    min_cosine : float or None
        Of every matched tensor and output.
    max_flips : int or None
        Inputs whose class may change.
    """

    tolerance: Tolerance | None = None
    min_cosine: float | None = None
    max_flips: int | None = None

    @property
    def given(self) -> bool:
        """Whether anything was asked."""
        return self.tolerance is not None or self.min_cosine is not None or self.max_flips is not None


@dataclass(frozen=True)
class Pair:
    """Two tensors taken for the same, and how far apart they are.

    Attributes
    ----------
    a, b : str
        Tensors.
    a_layer, b_layer : str
        Nodes that make them.
    a_op, b_op : str
    confidence, evidence
        As in :class:`~onnx_inspect.analysis.alignment.Match`.
    shape : tuple of int
        Of A's tensor for one input.
    order : tuple of int
        A's axes in B's layout; empty where they agree.
    apart : Difference
        Accumulated: both models ran from their inputs.
    local : Difference or None
        B's part alone, the quantiser behind it included: it was fed A's values. None where it couldn't be cut.
    note : str
        What the reader must know of the numbers.
    a_tied, b_tied : tuple of str
        Tensors that hold the same values.
    """

    a: str
    b: str
    a_layer: str
    b_layer: str
    a_op: str
    b_op: str
    confidence: float
    evidence: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    apart: Difference
    local: Difference | None
    note: str = ""
    a_tied: tuple[str, ...] = ()
    b_tied: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values: the accumulated difference's by their own names, the local one's under ``local_``."""
        own = {"a": self.a, "b": self.b, "confidence": self.confidence, "evidence": self.evidence}
        layers = {"a_layer": self.a_layer, "b_layer": self.b_layer, "a_op": self.a_op, "b_op": self.b_op}
        local = self.local.to_json() if self.local is not None else {}
        kept = ("sqnr_db", "max_abs", "cosine", "strange")
        local = {f"local_{key}": local.get(key) for key in kept}
        shape = {"shape": list(self.shape), "order": list(self.order), "note": self.note}
        ties = {"a_tied": list(self.a_tied), "b_tied": list(self.b_tied)}
        return own | layers | self.apart.to_json() | local | shape | ties


@dataclass(frozen=True)
class Suspect:
    """A layer whose own error was measured.

    Attributes
    ----------
    a, b : str
        Tensors; `a` is what B lacks where it lacks something.
    why : str
    local_noise : float
        Share of its energy that B's layer alone gets wrong.
    impact : float or None
        Share of the outputs' energy that this error alone changes.
    order : tuple of int
        A's axes in B's layout; empty where they agree.
    at : str
        A's tensor at which it was heard, where that isn't `a`.
    """

    a: str
    b: str
    why: str
    local_noise: float
    impact: float | None = None
    order: tuple[int, ...] = ()
    at: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        noise = {"local_sqnr_db": decibels(self.local_noise), "output_sqnr_db": decibels(self.impact)}
        return {"a": self.a, "b": self.b, "why": self.why} | noise


@dataclass(frozen=True)
class Comparison:
    """Two models on the same inputs.

    Attributes
    ----------
    a, b : str
        Where they come from.
    sources : tuple of str
        The inputs.
    identical : bool
        Whether the files are the same, byte by byte.
    outputs : tuple of OutputAgreement
    matched : tuple of Pair
        In A's order; the inputs are left out.
    unmatched_a, unmatched_b : tuple of str
    suspects : tuple of Suspect
        The guiltiest first; empty where nothing differs.
    limits : Limits
    offence : str
        What broke a limit first; "" where everything keeps to them.
    notes : tuple of str
    """

    a: str
    b: str
    sources: tuple[str, ...]
    identical: bool
    outputs: tuple[OutputAgreement, ...]
    matched: tuple[Pair, ...]
    unmatched_a: tuple[str, ...]
    unmatched_b: tuple[str, ...]
    suspects: tuple[Suspect, ...] = ()
    limits: Limits = Limits()
    offence: str = ""
    provider: str = ""
    notes: tuple[str, ...] = ()
    maps: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def agree(self) -> bool:
        """Whether the limits are kept, or where there are none, whether the outputs agree."""
        return not self.offence

    @property
    def culprit(self) -> Suspect | None:
        """The layer that causes the loss."""
        return self.suspects[0] if self.suspects else None

    def to_json(self) -> dict[str, Any]:
        """What ``compare --json`` prints."""
        culprit = self.culprit
        return {
            "agree": self.agree,
            "identical": self.identical,
            "offence": self.offence or None,
            "a": self.a,
            "b": self.b,
            "inputs": list(self.sources),
            "provider": self.provider,
            "outputs": [output.to_json() for output in self.outputs],
            "matched": [pair.to_json() for pair in self.matched],
            "unmatched_a": list(self.unmatched_a),
            "unmatched_b": list(self.unmatched_b),
            "culprit": culprit.to_json() if culprit is not None else None,
            "suspects": [suspect.to_json() for suspect in self.suspects],
            "notes": list(self.notes),
        }


def decibels(noise: float | None) -> float | None:
    """Signal to noise of a share of energy; None where there is no noise, or nobody knows."""
    if noise is None or noise == 0:
        return None
    return -10 * math.log10(noise) if math.isfinite(noise) else -math.inf


def offence(outputs: Sequence[OutputAgreement], matched: Sequence[Pair], limits: Limits) -> str:
    """Say what breaks a limit first, layers in their order and then outputs; "" where nothing does.

    Without limits the outputs are judged: no class may change, nothing be NaN or infinite in one model only, their
    cosine be at least .99 and their relative error at most 15 %.
    """
    if not limits.given:
        return next((text for output in outputs if (text := _disagrees(output))), "")
    for pair in matched:
        if text := _beyond(pair.apart, limits):
            return f"layer {pair.a_layer!r} ({pair.a}) against {pair.b_layer!r} ({pair.b}): {text}"
    for output in outputs:
        if text := _beyond(output.difference, limits):
            return f"output {output.a!r} against {output.b!r}: {text}"
    flips = max((len(output.flips) for output in outputs), default=0)
    if limits.max_flips is not None and flips > limits.max_flips:
        return f"{flips} of the inputs change their class, more than {limits.max_flips}"
    return ""


def _disagrees(output: OutputAgreement) -> str:
    found = output.difference
    where = f"output {output.a!r} against {output.b!r}"
    if found.strange:
        return f"{where}: {found.strange} elements are NaN or infinite in one of the two only"
    if output.flips:
        row, one, other = output.flips[0]
        return (
            f"{where}: {len(output.flips)} of the inputs change their class, the first is input {row}: {one} to {other}"
        )
    if found.cosine is None or found.cosine < SURE:
        return f"{where}: cosine {0 if found.cosine is None else found.cosine:.4f}, less than {SURE}"
    if found.noise > FAR**2:
        return f"{where}: relative error {math.sqrt(found.noise):.1%}, more than {FAR:.0%}"
    return ""


def _beyond(found: Difference, limits: Limits) -> str:
    if found.strange:
        return f"{found.strange} elements are NaN or infinite in one of the two only"
    if limits.tolerance is not None and found.excess is not None and found.excess > 0:
        allowed = f"atol {limits.tolerance.atol:g}, rtol {limits.tolerance.rtol:g}"
        return f"|a - b| up to {found.max_abs:.3g}, beyond {allowed} by {found.excess:.3g}"
    if limits.min_cosine is not None and (found.cosine is None or found.cosine < limits.min_cosine):
        return f"cosine {0 if found.cosine is None else found.cosine:.6f}, less than {limits.min_cosine:g}"
    return ""
