"""How values of tokens become what is drawn: a text whose tokens say how much each moved the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.saliency import said_beside
from onnx_inspect.cam._probe import Attribution, is_flat
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.tokens import TextInput

STRONGEST = 5  # parts of a text that are named, for and against


@dataclass(frozen=True)
class TokenMap:
    """One method's values of one text.

    Attributes
    ----------
    method : str
    target : str
        What was explained.
    score : float or None
    values : ndarray, (T,), float32
        Signed, in the score's own unit (see `unit`): positive speaks for the target.
    pro, contra : tuple of (str, float)
        The parts that speak most for the target, and most against it, strongest first.
    problem : str
        Why there is no evidence to show; "" where there is.
    every : bool
        Whether each token has a value, also those that are no text.
    """

    method: str
    target: str
    score: float | None
    values: NDArray[np.float32]
    pro: tuple[tuple[str, float], ...] = ()
    contra: tuple[tuple[str, float], ...] = ()
    problem: str = ""
    every: bool = False


@dataclass(frozen=True)
class TokenPanel:
    """One text with the values of all methods.

    Attributes
    ----------
    source : str
    pieces : tuple of str
        T tokens, padding left out.
    glued : tuple of bool
        Which of them follow without a space.
    asked : tuple of bool
        Which of them were hidden at all; the others are no text.
    maps : tuple of TokenMap
    notes : tuple of str
    signed : bool
        Whether values speak for and against something; otherwise they are amounts from 0.
    """

    source: str
    pieces: tuple[str, ...]
    glued: tuple[bool, ...]
    asked: tuple[bool, ...]
    maps: tuple[TokenMap, ...]
    notes: tuple[str, ...] = ()
    signed: bool = True


def of_batch(attributions: Sequence[Attribution], index: int, batch: Batch, *, signed: bool = True) -> TokenPanel:
    """Gather the values of one of a batch's texts; they are always drawn with their sign."""
    text = batch.read_as
    assert text is not None and signed is not None
    tokens, shown = text.tokens[index], text.tokens[index].shown
    unit = "word" if text.hiding.together else "token"
    notes = [f"a hidden {unit} becomes {text.hiding.words}"]
    if text.hiding.fill is None:
        notes = [f"a hidden {unit} is left out by {text.hiding.words}"]
    if all(a.tokenwise for a in attributions):
        notes = []
    if any(a.tokenwise for a in attributions):
        said = [said_beside(a, index) for a in attributions]
        notes += ["gradients are by the vector that stands for a token, summed or at its largest"]
        notes += [f"{a.method}: {line}" for a, line in zip(attributions, said, strict=True) if line]
    if padded := len(tokens.pieces) - len(shown):
        notes.append(f"{padded} padding tokens are not shown")
    return TokenPanel(
        source=batch.sources[index],
        pieces=tuple(tokens.written[i] for i in shown),
        glued=tuple(tokens.glued[i] for i in shown),
        asked=tuple(tokens.words[i] >= 0 for i in shown),
        maps=tuple(_map(a, index, text) for a in attributions),
        notes=tuple(notes),
    )


def parts(values: NDArray[Any], index: int, text: TextInput, *, every: bool = False) -> list[tuple[str, float]]:
    """The tokens (or words) of a text with their values (T,), in order; what was never hidden is left out.

    With `every`, all tokens but padding, one by one.
    """
    tokens, units = text.tokens[index], text.units[index]
    if every:
        return [(tokens.written[i], float(values[i])) for i in tokens.shown]
    found = []
    for unit in range(text.counts[index]):
        places = np.flatnonzero(units == unit)
        pieces = [tokens.pieces[places[0]], *(tokens.written[i] for i in places[1:])]
        found.append(("".join(pieces), float(values[places[0]])))
    return found


def _map(attribution: Attribution, index: int, text: TextInput) -> TokenMap:
    values = attribution.values[index, 0]
    score = float(attribution.scores[index])
    ranked = sorted(parts(values, index, text, every=attribution.tokenwise), key=lambda part: -part[1])
    return TokenMap(
        method=attribution.method,
        target=attribution.targets[index],
        score=score if math.isfinite(score) else None,
        values=values[text.tokens[index].shown],
        pro=tuple(part for part in ranked[:STRONGEST] if part[1] > 0),
        contra=tuple(part for part in ranked[::-1][:STRONGEST] if part[1] < 0),
        problem=_problem(values),
        every=attribution.tokenwise,
    )


def _problem(values: NDArray[np.float32]) -> str:
    if not np.isfinite(values).all():
        return "not finite: the values hold NaN or infinity"
    return "no token moves the score" if is_flat(values) else ""
