"""A box that a detector finds: how well any of its proposals matches it, before any proposal is dropped.

``s = max over proposals j of IoU(box, box_j) * score_j(class)``. The class is the one given, else that of the proposal
which matches the box best on the input itself.

D-RISE (Petsiuk et al. 2020, arXiv:2006.03204) compares the whole vectors P of class scores instead, and weighs by the
objectness O: ``s = max over j of IoU(box, box_j) * O_j * cos(P, P_j)``. P is 1 for a class that was given and 0 for the
others, else the best match's own. Where a detector has no objectness, its largest class score serves: the cosine alone
would count a proposal that sees nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Box, Context, Fixed, Floats, Index, Options, Outputs, Target
from onnx_inspect.targets._plane import mirrored_box, overlap, overlap_slopes, parse_box, to_picture, to_plane
from onnx_inspect.targets._scores import label
from onnx_inspect.targets.category import find
from onnx_inspect.targets.decoders import Detections, Layout, Picked
from onnx_inspect.targets.decoders import find as find_decoder

DETECTION = "detection"  # name of the reading that compares whole detections


@dataclass(frozen=True)
class BoxTarget(Target):
    """A box on the original picture, or each input's own best one.

    Attributes
    ----------
    box : (x0, y0, x1, y1) or None
        In the original's pixels.
    index : int or None
        Class.
    decoder : str or None
    text : str
        As it was given.
    """

    box: Box | None = None
    index: int | None = None
    decoder: str | None = None
    text: str = ""

    def describe(self) -> str:
        """Give ``box:x0,y0,x1,y1@class``; ``box:best`` for each input's own."""
        where = "best" if self.box is None else ",".join(f"{v:g}" for v in self.box)
        return self.text or f"box:{where}" + ("" if self.index is None else f"@{self.index}")

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the outputs that boxes and class scores are read from."""
        return self._layout(context).tensors

    def fix(self, context: Context, outputs: Outputs) -> FixedBox:
        """Choose each input's box and class."""
        layout = self._layout(context)
        found = layout.decode([outputs[name] for name in layout.tensors], context.size)
        if self.index is not None and self.index >= found.scores.shape[2]:
            raise TargetError(
                f"class {self.index} doesn't exist: the detector scores classes 0 to {found.scores.shape[2] - 1}"
            )
        chosen = [self._choose(context, found, n) for n in range(context.batch.n)]
        boxes = np.array([box for box, _, _ in chosen])
        classes = np.array([index for _, index, _ in chosen])
        vectors = np.array([vector for _, _, vector in chosen])
        own = context.batch.labels
        words = []
        for n, (box, index, _) in enumerate(chosen):
            where = ",".join(f"{v:.0f}" for v in to_picture(box, context, n))
            words.append(f"{label(own, index) if own else f'class {index}'} in box {where}")
        fixed = FixedBox(tuple(words), np.full(len(words), -1), (), layout, boxes, classes, vectors, context.size)
        if self.box is not None:
            return fixed
        scores = fixed.read(outputs, np.arange(len(words)))[:, 0]
        note = "; ".join(f"{word} ({score:.2f})" for word, score in zip(words, scores, strict=True))
        said = f"target: the best box, {note}; read as {layout.family}; choose another with --target box:x0,y0,x1,y1"
        return replace(fixed, notes=(said,))

    def _layout(self, context: Context) -> Layout:
        shapes = {o.name: context.shapes[o.name] for o in context.model.outputs if o.name in context.shapes}
        return find_decoder(shapes, context.size, self.decoder)

    def _choose(self, context: Context, found: Detections, n: int) -> tuple[Box, int, Floats]:
        """Box in the plane, class and class vector of one input."""
        scores = found.scores[n] if self.index is None else found.scores[n][:, [self.index]]
        given = np.eye(found.scores.shape[2])
        if self.box is None:
            proposal, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
            x0, y0, x1, y1 = (float(v) for v in np.clip(found.boxes[n, proposal], 0, 1))
            if not (x0 < x1 and y0 < y1):
                raise TargetError(f"the best box of {context.batch.sources[n]} is empty: no box is found there")
            box = x0, y0, x1, y1
            if self.index is not None:
                return box, self.index, given[self.index]
            return box, int(column), found.scores[n, proposal]
        box = to_plane(self.box, context, n)
        if self.index is not None:
            return box, self.index, given[self.index]
        match = overlap(np.array([box]), found.boxes[n : n + 1])[0][:, None] * scores
        proposal, column = np.unravel_index(int(np.argmax(match)), match.shape)
        return box, int(column), found.scores[n, proposal]


@dataclass(frozen=True)
class FixedBox(Fixed):
    """A box (N, 4) in the plane, a class (N,) and a vector of class scores (N, classes) for each input."""

    layout: Layout
    places: Floats
    wanted: Index
    vectors: Floats
    size: tuple[int, int]

    @property
    def boxes(self) -> tuple[Box | None, ...]:
        """The boxes."""
        return tuple((float(b[0]), float(b[1]), float(b[2]), float(b[3])) for b in self.places)

    @property
    def readings(self) -> Mapping[str, int]:
        """D-RISE's likeness of whole detections."""
        return {DETECTION: 1}

    def read(self, outputs: Outputs, of: Index) -> Floats:
        """The best match's overlap times its score, and its likeness as a whole detection, (B, 2), in [0, 1]."""
        found = self.layout.decode([outputs[name] for name in self.layout.tensors], self.size)
        shared = overlap(self.places[of], found.boxes)  # (B, n)
        scores = found.scores[np.arange(len(of)), :, self.wanted[of]]
        matches = (shared * scores).max(axis=1)
        row, proposal = np.nonzero(shared)
        own, wanted = np.asarray(found.scores[row, proposal], np.float64), self.vectors[of[row]]
        lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(wanted, axis=1)
        alike = np.divide((own * wanted).sum(axis=1), lengths, out=np.zeros(len(row)), where=lengths > 0)
        objects = own.max(axis=1, initial=0.0) if found.objects is None else found.objects[row, proposal]
        likenesses = np.zeros(len(of))
        np.maximum.at(likenesses, row, shared[row, proposal] * objects * alike)
        return np.stack([matches, likenesses], axis=1)

    @property
    def linear(self) -> bool:
        """Overlaps and scores are multiplied."""
        return False

    def slopes(self, outputs: Outputs, of: Index) -> dict[str, Floats]:
        """Derivatives by what the best match was read from: which proposal that is stays as it is."""
        arrays = [outputs[name] for name in self.layout.tensors]
        found = self.layout.decode(arrays, self.size)
        rows = np.arange(len(of))
        scores = np.asarray(found.scores[rows, :, self.wanted[of]], np.float64)  # (B, n)
        shared = overlap(self.places[of], found.boxes)
        which = (shared * scores).argmax(axis=1)
        by_score = np.zeros((len(of), found.scores.shape[2]))
        by_score[rows, self.wanted[of]] = shared[rows, which]
        by_box = scores[rows, which, None] * overlap_slopes(self.places[of], found.boxes[rows, which])
        slopes = self.layout.slopes(arrays, self.size, Picked(rows, which, by_box, by_score))
        return dict(zip(self.layout.tensors, slopes, strict=True))

    def mirrored(self) -> FixedBox:
        """The boxes flipped."""
        return replace(self, places=np.array([mirrored_box(b) for b in self.boxes if b is not None]))


def parse(text: str, options: Options) -> tuple[BoxTarget]:
    """Read ``x0,y0,x1,y1`` or ``best``, and a class behind an @.

    Raises
    ------
    TargetError
        Not a box, or an unknown class.
    """
    where, _, name = text.partition("@")
    box = None if where == "best" else parse_box(where, "box")
    index = find(name, options.labels) if name else None
    return (BoxTarget(box, index, options.decoder, f"box:{text}"),)
