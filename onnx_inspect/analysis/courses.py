"""What each tensor of a model comes from and what becomes of it, told alike however operators were split or fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.fingerprints import Fingerprint
from onnx_inspect.analysis.ties import MOVING, QUANTISING, Tied
from onnx_inspect.graph.points import INPUT, Point

PRODUCTS, PRODUCT = ("Conv", "MatMul"), "product"
SCALINGS = ("Add", "Mul", "Sub", "BatchNormalization")  # their order doesn't count, where they join two
FORMS = MOVING | QUANTISING


class Course:
    """What each class comes from and what becomes of it, as numbers that tell the same operators in the same order.

    What the two models may have split or fused counts as one step: a product with the scaling and bias that only it
    has, anything with the Relu and the quantiser that only it has. Values that are read in quantised form beside
    their own are the same values.
    """

    def __init__(
        self,
        points: Sequence[Point],
        prints: Mapping[str, Fingerprint],
        outputs: Sequence[str],
        found: Sequence[Tied],
    ) -> None:
        self.points, self.prints, self.outputs, self.found = points, prints, outputs, found
        self.readers = readers([tied.sources for tied in found])
        self.kinds = [PRODUCT if tied.kind in PRODUCTS else tied.kind for tied in found]
        self.sources = [list(tied.sources) for tied in found]
        self.ends: dict[int, int] = {}  # the last part of a step, by its earlier ones
        self.through: dict[int, int] = {}  # what a class merely holds in another form
        for number, tied in enumerate(found):
            before = tied.sources[0] if len(tied.sources) == 1 else None
            if before is None or not self._continues(tied.kind, before):
                continue
            if self._only(before):
                self.kinds[number], self.sources[number] = self.kinds[before], self.sources[before]
                # Its bias makes a product whole, however it was added; what comes before a Relu is one step, too.
                self.kinds[before] = found[before].kind if tied.kind in SCALINGS else f"{self.kinds[before]}, before"
                self.ends |= {k: number for k, end in self.ends.items() if end == before} | {before: number}
            elif tied.kind in FORMS:
                self.through[number] = self.through.get(before, before)

    def _continues(self, kind: str, before: int) -> bool:
        return kind in FORMS or kind == "Relu" or (kind in SCALINGS and self.kinds[before] == PRODUCT)

    def _only(self, number: int) -> bool:
        """Whether a class has one reader, and isn't an output."""
        first = self.points[self.found[number].members[0]]
        names = {self.points[m].name for m in self.found[number].members}
        return len(self.readers[number]) == 1 and not names.intersection(self.outputs) and first.op_type != INPUT

    def _form(self, number: int) -> tuple[Any, ...]:
        first = self.points[self.found[number].members[0]]
        return self.kinds[number], first.slot, self.prints[first.name].size

    def steps(self) -> NDArray[np.int64]:
        """Number of the step that each class belongs to: that of its last part."""
        return np.array([self.ends.get(number, number) for number in range(len(self.found))])

    def pasts(self) -> list[int]:
        """What each class is made by, all the way from the inputs."""
        made: list[int] = []
        for number in range(len(self.found)):
            if number in self.through:
                made.append(made[self.through[number]])
                continue
            sources = [made[s] for s in self.sources[number]]
            made.append(hash((*self._form(number), *(sorted(sources) if self.kinds[number] in SCALINGS else sources))))
        return made

    def futures(self) -> list[int]:
        """What becomes of each class, all the way to the outputs."""
        made = [0] * len(self.found)
        after: list[list[tuple[int, int]]] = [[] for _ in self.found]
        for number in range(len(self.found) - 1, -1, -1):
            for reader in self.readers[number]:
                slot = 0 if self.found[reader].kind in SCALINGS else self.found[reader].sources.index(number)
                own = [(slot, made[reader])]
                after[number] += after[reader] if reader in self.through else own
            if number in self.ends:
                made[number] = made[self.ends[number]]
                continue
            names = [self.points[m].name for m in self.found[number].members]
            after[number] += [(-1, self.outputs.index(name)) for name in names if name in self.outputs]
            form = self._form(self.through.get(number, number))
            made[number] = hash((*form, *sorted(after[number])))
        return made


def readers(sources: Sequence[Sequence[int]]) -> list[list[int]]:
    """Classes that read each one, by the classes that each one reads."""
    found: list[list[int]] = [[] for _ in sources]
    for number, own in enumerate(sources):
        for source in own:
            found[source].append(number)
    return found
