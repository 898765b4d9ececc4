"""How much a method may run before it must answer, what it has left, and how sure an early answer is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnx_inspect.errors import MethodError

STABLE = 0.97  # rank correlation of the maps of two halves of the masks, from which on an estimate is left as it is
Clock = Callable[[], float]


@dataclass(frozen=True)
class Budget:
    """Passes for each input, or seconds for all of them together: one of the two; and the stability that ends it early.

    Raises
    ------
    MethodError
        Not a number above 0.
    """

    passes: int | None = None
    seconds: float | None = None
    stable: float = STABLE

    def __post_init__(self) -> None:
        """Check the amount."""
        amount = self.seconds if self.passes is None else self.passes
        if amount is None or not 0 < amount < float("inf"):
            raise MethodError(f"a budget is a number of passes or seconds above 0, got {amount}")

    def describe(self) -> str:
        """Give the amount and its unit."""
        return f"{self.seconds:g} s" if self.passes is None else f"{self.passes} passes"


def parse_budget(text: str) -> Budget:
    """Read ``200`` (passes for each input), ``5s`` or ``500ms``.

    Raises
    ------
    MethodError
        Neither.

    Examples
    --------
    >>> parse_budget("200").describe(), parse_budget("1.5s").describe()
    ('200 passes', '1.5 s')
    """
    words = text.strip().lower().removesuffix("passes").strip()
    for unit, size in (("ms", 1e-3), ("s", 1.0)):
        if words.endswith(unit):
            try:
                return Budget(seconds=float(words.removesuffix(unit)) * size)
            except ValueError:
                break
    if not words.isdigit():
        raise MethodError(f"a budget is a number of passes like 200, or of seconds like 5s, got {text!r}")
    return Budget(passes=int(words))


@dataclass(frozen=True)
class Estimate:
    """What a budget was spent on.

    Attributes
    ----------
    budget : str
    passes, whole : tuple of int
        Passes that each input's masks took, and those that the definition takes.
    stability : tuple of float
        Rank correlation of the maps that two halves of each input's masks make; NaN where there were too few.
    stable : float
        The stability that counted as enough.
    """

    budget: str
    passes: tuple[int, ...]
    whole: tuple[int, ...]
    stability: tuple[float, ...]
    stable: float = STABLE

    @property
    def complete(self) -> tuple[bool, ...]:
        """Whether each input's map is the definition's after all."""
        return tuple(spent >= whole for spent, whole in zip(self.passes, self.whole, strict=True))

    def describe(self, index: int) -> str:
        """Say of one input's map how much it rests on."""
        if self.complete[index]:
            return f"all {self.whole[index]} passes: no estimate"
        stability = self.stability[index]
        said = "stability unknown" if np.isnan(stability) else f"stability {stability:.2f}"
        return f"estimate: {self.passes[index]} of {self.whole[index]} passes, {said}"


@dataclass
class Meter:
    """What is left of a budget while a method runs, and what it was spent on.

    Attributes
    ----------
    stable : float
        The stability that is enough.
    passes : int or None
        Left for each input.
    deadline : float or None
        On the clock.
    spent : list of Estimate
        One for each group of masks that the method runs.
    whole : Meter or None
        Of which this one is a part.
    """

    budget: Budget
    clock: Clock = time.perf_counter
    stable: float = STABLE
    passes: int | None = None
    deadline: float | None = None
    spent: list[Estimate] = field(default_factory=list)
    whole: Meter | None = None

    def __post_init__(self) -> None:
        """Start the clock."""
        if self.passes is None and self.deadline is None:
            self.passes = self.budget.passes
            self.deadline = None if self.budget.seconds is None else self.clock() + self.budget.seconds

    @property
    def late(self) -> bool:
        """Whether time is up."""
        return self.deadline is not None and self.clock() >= self.deadline

    def part(self, parts: int) -> Meter:
        """A meter of what is left, divided by the parts still to come; what it spends is this one's too."""
        passes = None if self.passes is None else max(1, self.passes // parts)
        now = self.clock()
        deadline = None if self.deadline is None else now + max(0.0, self.deadline - now) / parts
        return Meter(self.budget, self.clock, self.stable, passes, deadline, whole=self)

    def note(self, estimate: Estimate) -> None:
        """Take what was spent off, and remember it."""
        self.spent.append(estimate)
        if self.passes is not None:
            self.passes = max(0, self.passes - max(estimate.passes, default=0))
        if self.whole is not None:
            self.whole.note(estimate)

    def estimate(self) -> Estimate | None:
        """All that was spent, as one; None where nothing asked what was left."""
        if not self.spent:
            return None
        passes, whole = (np.sum([getattr(e, name) for e in self.spent], axis=0) for name in ("passes", "whole"))
        stability = np.min([e.stability for e in self.spent], axis=0)
        return Estimate(
            self.budget.describe(),
            tuple(int(p) for p in passes),
            tuple(int(w) for w in whole),
            tuple(float(s) for s in stability),
            self.stable,
        )
