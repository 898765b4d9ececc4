"""What a text is to a model: its tokens, which of them stand for nothing, and how some of them are hidden from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError

if TYPE_CHECKING:
    from onnx_inspect.inputs.text import Coder

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Tokens:
    """One sample's tokens, T of them.

    Attributes
    ----------
    text : str
        What was tokenised, both texts of a pair with `` ||| `` between them; "" where only ids are known.
    pieces : tuple of str
        How each token is written: a piece of the text, ``##`` before it where the tokenizer says that a word goes on;
        the token's own name where it is no text (``[CLS]``, ``[UNK]``).
    words : tuple of int
        Which word each token is part of, counted through both texts; -1 for what is no text.
    segments : tuple of int
        1 in the second text of a pair.
    padding : tuple of bool
        Whether a token only fills up.
    spans : tuple of (int, int)
        Where each token starts and ends in its own text of the pair; (0, 0) for what is no text.
    """

    text: str
    pieces: tuple[str, ...]
    words: tuple[int, ...]
    segments: tuple[int, ...]
    padding: tuple[bool, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """How many tokens aren't padding."""
        return self.padding.count(False)

    @property
    def shown(self) -> Index:
        """Places of the tokens that aren't padding."""
        return np.flatnonzero(~np.array(self.padding, bool))

    @property
    def glued(self) -> tuple[bool, ...]:
        """Whether each token follows the one before without a space."""
        found = [False] * len(self.pieces)
        for place in range(1, len(self.pieces)):
            both = self.words[place] >= 0 and self.words[place - 1] >= 0
            if both and self.segments[place] == self.segments[place - 1]:
                known = self.spans[place] != (0, 0)
                met = self.spans[place][0] <= self.spans[place - 1][1]
                found[place] = met if known else self.words[place] == self.words[place - 1]
        return tuple(found)

    @property
    def written(self) -> tuple[str, ...]:
        """Pieces as they stand in a line of text: without ``##`` where they follow without a space."""
        return tuple(p.removeprefix("##") if g else p for p, g in zip(self.pieces, self.glued, strict=True))

    def units(self, *, together: bool) -> Index:
        """Number of the token, or of the word, that each place belongs to, from 0; -1 for what is no text, (T,)."""
        words = np.array(self.words, np.intp)
        numbers = np.full(len(words), -1, np.intp)
        text = words >= 0
        numbers[text] = np.unique(words[text], return_inverse=True)[1] if together else np.arange(text.sum())
        return numbers


@dataclass(frozen=True)
class Hiding:
    """How a token is kept from a model.

    Attributes
    ----------
    fill : int or None
        The id that is put in its place; None where the attention mask leaves it out instead.
    words : str
        The same in words.
    together : bool
        Whether all tokens of a word are hidden at once.
    """

    fill: int | None
    words: str
    together: bool = False


@dataclass(frozen=True)
class TextInput:
    """Text as the inputs of a model hold it.

    Attributes
    ----------
    name : str
        The input that holds the ids; tokens lie on its last axis.
    mask : str or None
        The input that holds the attention mask.
    tokens : tuple of Tokens
        One for each of the N samples, all of the same length.
    ways : mapping of str to Hiding
        How tokens can be hidden: by the tokenizer's ``mask``, ``unk`` or ``pad`` token, by the ``attention`` mask; the
        best first.
    hiding : Hiding
        How methods that cover parts of the input cover tokens.
    coder : Coder or None
        Makes ids of other texts; None without a tokenizer.
    """

    name: str
    mask: str | None
    tokens: tuple[Tokens, ...]
    ways: Mapping[str, Hiding]
    hiding: Hiding
    coder: Coder | None = None

    def hide(self, way: str | None, *, together: bool = False) -> TextInput:
        """Hide tokens in another way, one of `ways` or an id; `together` hides whole words.

        Raises
        ------
        InputError
            There is no such way.
        """
        hiding = self.hiding
        if way is not None and way.isdecimal():
            hiding = Hiding(int(way), f"id {int(way)}")
        elif way is not None:
            if way not in self.ways:
                there = ", ".join([*self.ways, "an id"])
                raise InputError(f"tokens can't be hidden by {way!r} here; there are: {there}")
            hiding = self.ways[way]
        return replace(self, hiding=replace(hiding, together=together))

    @property
    def units(self) -> tuple[Index, ...]:
        """What is hidden at once, for each sample: a number for each place, -1 for what is never hidden, (T,)."""
        return tuple(tokens.units(together=self.hiding.together) for tokens in self.tokens)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many such parts each sample has."""
        return tuple(int(units.max(initial=-1)) + 1 for units in self.units)

    def hidden(self, arrays: Any, shown: NDArray[Any], of: Index) -> dict[str, NDArray[Any]]:
        """Make the inputs of variants in which some parts are hidden.

        Parameters
        ----------
        arrays : mapping of input name to ndarray, (N, ...)
        shown : ndarray, (B, U)
            At least 0.5 where a part is shown; parts that a sample doesn't have don't count.
        of : ndarray, (B,), int
            The sample that each variant stems from.

        Returns
        -------
        dict of input name to ndarray, (B, ...)
            The input that differs: the ids, or the attention mask.
        """
        units = np.stack(self.units)[of]  # (B, T)
        seen = np.take_along_axis(np.asarray(shown) >= 0.5, np.maximum(units, 0), axis=1) | (units < 0)
        name = self.name if self.hiding.fill is not None else self.mask
        assert name is not None
        variants = np.array(arrays[name][of])  # (B, ..., T)
        gone = np.broadcast_to(~seen.reshape(len(of), *(1,) * (variants.ndim - 2), -1), variants.shape)
        variants[gone] = 0 if self.hiding.fill is None else self.hiding.fill
        return {name: variants}

    def on_tokens(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Give each token its part's number: (N, 1, U) becomes (N, 1, T), 0 for what was never hidden."""
        units = np.stack(self.units)  # (N, T)
        spread = np.take_along_axis(np.asarray(values, np.float32)[:, 0], np.maximum(units, 0), axis=1)
        return np.where(units >= 0, spread, np.float32(0))[:, None]
