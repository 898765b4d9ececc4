"""How sentences become the ids, masks and positions that a model's inputs want."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError, MissingExtra
from onnx_inspect.inputs.tensors import cast
from onnx_inspect.inputs.tokens import Hiding, Tokens

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec

Arrays = dict[str, NDArray[Any]]

BETWEEN = "|||"  # the two texts of a pair
# Which part each input plays, by what its name holds; the first that fits counts.
PARTS = (
    ("types", re.compile(r"token_?type|segment")),
    ("positions", re.compile(r"position")),
    ("mask", re.compile(r"mask")),
    ("ids", re.compile(r"(^|input_?|token_?)ids?$|^tokens?$|^text$")),
)
SPECIAL = {
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>", "<|unk|>"),
    "pad": ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>"),
}


def parts(specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Tell which inputs take text: the names of those for ``ids``, ``mask``, ``types`` and ``positions``.

    An input is told by its name, its rank (2, or 3 with one text a sample) and its type. Where no name tells the ids
    but one whole-numbered input is left, it is that.

    Returns
    -------
    dict
        Part to input name; empty where the model takes no ids.
    """
    found: dict[str, str] = {}
    rest = []
    for name, spec in specs.items():
        bare = re.sub(r"(:\d+|_+\d+(:\d+)?)$", "", name.lower().rsplit("/", 1)[-1])
        part = next((part for part, pattern in PARTS if pattern.search(bare)), None)
        if bare.startswith(("decoder", "past", "unique")) or not _holds_tokens(spec, part):
            continue
        if part is None:
            rest.append(name)
        else:
            found.setdefault(part, name)
    if "ids" not in found and len(rest) == 1 and (found or len(specs) == 1):
        found["ids"] = rest[0]
    return found if "ids" in found else {}


def _holds_tokens(spec: TensorSpec, part: str | None) -> bool:
    if spec.shape is None or len(spec.shape) not in (2, 3) or (len(spec.shape) == 3 and spec.shape[1] not in (1, None)):
        return False
    return spec.dtype in ("int32", "int64", "uint32") or (part == "mask" and (spec.is_float or spec.dtype == "bool"))


@dataclass(frozen=True)
class Coder:
    """Between texts and what a model is fed.

    Attributes
    ----------
    specs : mapping of input name to TensorSpec
    parts : mapping of part to input name
        As :func:`parts` gives.
    tokenizer : tokenizers.Tokenizer or None
        None where texts are ids already.
    source : str
        The tokenizer's file.
    """

    specs: Mapping[str, TensorSpec]
    parts: Mapping[str, str]
    tokenizer: Any
    source: str

    @property
    def length(self) -> int | None:
        """How many tokens the model takes, where its inputs fix that."""
        ends = [self.specs[name].shape for name in self.parts.values()]
        return next((s[-1] for s in ends if s and isinstance(s[-1], int)), None)

    def encode(self, texts: Sequence[str]) -> tuple[Arrays, tuple[Tokens, ...], tuple[str, ...]]:
        """Turn texts into one batch, shorter ones padded.

        Parameters
        ----------
        texts : sequence of str
            A pair has `` ||| `` between its two; without a tokenizer, ids with spaces or commas between them.

        Returns
        -------
        arrays : dict of input name to ndarray, (N, T) or (N, 1, T)
        tokens : tuple of Tokens
        notes : tuple of str
            What was cut off or filled up.

        Raises
        ------
        InputError
            An empty text, or one that can't be encoded.
        """
        if empty := [n for n, text in enumerate(texts) if not text.strip(f" {BETWEEN[0]}\t\n")]:
            raise InputError(f"text {empty[0] + 1} of {len(texts)} is empty: give some words")
        rows, notes = (_numbers(texts), ()) if self.tokenizer is None else self._tokenised(texts)
        limit = self.length
        if self.tokenizer is None and limit is not None and (long := max(len(row.ids) for row in rows)) > limit:
            raise InputError(f"{long} ids were given, but input {self.parts['ids']!r} takes {limit}")
        return self._batch(rows, limit, list(notes))

    def complete(self, ids: NDArray[Any], seen: NDArray[Any] | None) -> tuple[Arrays, tuple[str, ...]]:
        """Make the inputs that go with ids (N, ..., T) whose reader gave no more.

        Parameters
        ----------
        seen : ndarray or None
            The attention mask, where it was given; all ones otherwise.
        """
        mask = np.ones(ids.shape, np.int64) if seen is None else np.asarray(seen, np.int64)
        flat = mask.reshape(-1, mask.shape[-1])
        made = {"mask": mask, "types": np.zeros_like(mask), "positions": _positions(flat).reshape(mask.shape)}
        said = {"mask": "all ones: every id is seen", "types": "all 0: one text", "positions": "counted from 0"}
        arrays = {self.parts[part]: self._fitted(part, made[part]) for part in made if part in self.parts}
        notes = tuple(f"input {self.parts[part]!r}: {said[part]}" for part in made if part in self.parts)
        return arrays, notes

    def read_ids(self, ids: NDArray[Any], seen: NDArray[Any] | None) -> tuple[Tokens, ...]:
        """Name the tokens of ids (N, T) that were given as numbers."""
        flat = np.asarray(ids).reshape(-1, ids.shape[-1])
        mask = np.ones(flat.shape, bool) if seen is None else np.asarray(seen).reshape(flat.shape) != 0
        if self.tokenizer is None:
            return tuple(_row([int(i) for i in row]).tokens(list(m)) for row, m in zip(flat, mask, strict=True))
        special = {i for i, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        return tuple(self._named([int(i) for i in row], list(m), special) for row, m in zip(flat, mask, strict=True))

    def ways(self) -> dict[str, Hiding]:
        """How tokens can be hidden from the model, the best first."""
        found: dict[str, Hiding] = {}
        for way, names in SPECIAL.items():
            known = [] if self.tokenizer is None else [(n, self.tokenizer.token_to_id(n)) for n in names]
            if there := next(((name, number) for name, number in known if number is not None), None):
                found[way] = Hiding(there[1], f"{there[0]} (id {there[1]})")
            if way == "mask" and "mask" in self.parts:
                found["attention"] = Hiding(None, "the attention mask")
        return found

    def _tokenised(self, texts: Sequence[str]) -> tuple[list[_Row], tuple[str, ...]]:
        """Encode with the file's own truncation, or to the model's fixed length."""
        kept = self.tokenizer.truncation
        own = kept["max_length"] if kept else None
        limit = min((n for n in (own, self.length) if n is not None), default=None)
        why = "the model's fixed length" if limit is not None and limit == self.length else f"{self.source}'s limit"
        pairs = [_pair(text) for text in texts]
        working = type(self.tokenizer).from_str(self.tokenizer.to_str())  # its settings change here
        working.no_padding()
        working.no_truncation()
        full = self._encoded(working, pairs)
        if limit is None or max(len(one.ids) for one in full) <= limit:
            return [_encoded_row(one, pair) for one, pair in zip(full, pairs, strict=True)], ()
        working.enable_truncation(limit)
        cut = self._encoded(working, pairs)
        notes = tuple(
            f"text {n + 1} of {len(texts)} is cut from {len(f.ids)} tokens to {len(c.ids)}, {why}"
            for n, (f, c) in enumerate(zip(full, cut, strict=True))
            if len(c.ids) < len(f.ids)
        )
        return [_encoded_row(one, pair) for one, pair in zip(cut, pairs, strict=True)], notes

    def _encoded(self, tokenizer: Any, pairs: Sequence[tuple[str, ...]]) -> list[Any]:
        try:
            return list(tokenizer.encode_batch([pair if len(pair) > 1 else pair[0] for pair in pairs]))
        except Exception as error:  # the library raises plain exceptions of its own
            raise InputError(f"{self.source} can't encode the text: {str(error)[:200]}") from error

    def _batch(
        self, rows: Sequence[_Row], limit: int | None, notes: list[str]
    ) -> tuple[Arrays, tuple[Tokens, ...], tuple[str, ...]]:
        longest = max(len(row.ids) for row in rows)
        length = limit or longest
        pad, left = self._padding()
        if short := [len(row.ids) for row in rows if len(row.ids) < length]:
            seen = "" if "mask" in self.parts else "; the model takes no attention mask, so it sees them"
            why = f"the model's fixed {length}" if limit else f"the longest text's {length}"
            some = f"{len(short)} of {len(rows)} texts" if len(rows) > 1 else "the text"
            notes.append(f"{some} filled up with {pad[0]} (id {pad[1]}) to {why} tokens{seen}")
        rows = [row.padded(length, pad, left=left) for row in rows]
        seen_by = [[not gone for gone in row.padding] for row in rows]
        mask = np.array(seen_by, np.int64)  # (N, T)
        made = {"ids": np.array([row.ids for row in rows], np.int64), "mask": mask, "positions": _positions(mask)}
        made["types"] = np.array([row.types for row in rows], np.int64)
        arrays = {name: self._fitted(part, made[part]) for part, name in self.parts.items()}
        tokens = tuple(row.tokens(seen) for row, seen in zip(rows, seen_by, strict=True))
        return arrays, tokens, tuple(notes)

    def _padding(self) -> tuple[tuple[str, int], bool]:
        """The token that fills up, and whether it goes to the left: the tokenizer file's choice, else its [PAD]."""
        if self.tokenizer is None:
            return ("0", 0), False
        own = self.tokenizer.padding
        if own:
            return (own["pad_token"], own["pad_id"]), own["direction"] == "left"
        known = ((name, self.tokenizer.token_to_id(name)) for name in SPECIAL["pad"])
        return next(((name, i) for name, i in known if i is not None), ("id", 0)), False

    def _fitted(self, part: str, values: NDArray[Any]) -> NDArray[Any]:
        """Give (N, T) the input's rank and type."""
        spec = self.specs[self.parts[part]]
        assert spec.shape is not None
        if values.ndim < len(spec.shape):
            values = values.reshape(len(values), *(1,) * (len(spec.shape) - values.ndim), values.shape[-1])
        return cast(values, spec, f"the {part} made of the text")

    def _named(self, ids: list[int], seen: list[Any], special: set[int]) -> Tokens:
        names = [self.tokenizer.id_to_token(i) for i in ids]
        words, word = [], -1
        for number, name, shown in zip(ids, names, seen, strict=True):
            if number in special or not shown:
                words.append(-1)
                continue
            word += 0 if word >= 0 and name is not None and name.startswith("##") else 1
            words.append(word)
        pieces = tuple(str(i) if name is None else name for i, name in zip(ids, names, strict=True))
        blank = ((0, 0),) * len(ids)
        return Tokens("", pieces, tuple(words), (0,) * len(ids), tuple(not s for s in seen), blank)


@dataclass(frozen=True)
class _Row:
    """One text's tokens before they have the batch's length."""

    text: str
    ids: list[int]
    types: list[int]
    segments: list[int]
    pieces: list[str]
    words: list[int]
    spans: list[tuple[int, int]]
    padding: list[bool]

    def padded(self, length: int, pad: tuple[str, int], *, left: bool) -> _Row:
        """Fill up to a length."""
        more = length - len(self.ids)

        def fill(values: list[Any], value: Any) -> list[Any]:
            return [value] * more + values if left else values + [value] * more

        return _Row(
            self.text,
            fill(self.ids, pad[1]),
            fill(self.types, 0),
            fill(self.segments, 0),
            fill(self.pieces, pad[0]),
            fill(self.words, -1),
            fill(self.spans, (0, 0)),
            fill(self.padding, True),
        )

    def tokens(self, seen: Sequence[Any]) -> Tokens:
        """What of it is kept beside the batch."""
        words = tuple(word if shown else -1 for word, shown in zip(self.words, seen, strict=True))
        padding = tuple(not shown for shown in seen)
        return Tokens(self.text, tuple(self.pieces), words, tuple(self.segments), padding, tuple(self.spans))


def _row(ids: list[int]) -> _Row:
    count = len(ids)
    blank = [(0, 0)] * count
    return _Row("", ids, [0] * count, [0] * count, [str(i) for i in ids], list(range(count)), blank, [False] * count)


def _encoded_row(one: Any, pair: tuple[str, ...]) -> _Row:
    segments = [number or 0 for number in one.sequence_ids]
    words, last, count = [], None, -1
    for word, segment in zip(one.word_ids, one.sequence_ids, strict=True):
        if word is None or segment is None:
            words.append(-1)
            continue
        count += (word, segment) != last
        last = (word, segment)
        words.append(count)
    pieces, before = [], None
    for token, span, segment, word in zip(one.tokens, one.offsets, segments, words, strict=True):
        place = (segment, *span) if word >= 0 else None
        pieces.append(_piece(token, pair[segment][slice(*span)], repeated=place is not None and place == before))
        before = place
    shown = [span if word >= 0 else (0, 0) for span, word in zip(one.offsets, words, strict=True)]
    text = f" {BETWEEN} ".join(pair)
    return _Row(text, one.ids, one.type_ids, segments, pieces, words, shown, [False] * len(one.ids))


def _piece(token: str, written: str, *, repeated: bool) -> str:
    """How a token is shown: as the text has it, since byte-level vocabularies write bytes, not letters."""
    plain = written.strip()
    if token in SPECIAL["unk"] or not written:
        return token
    if not plain:
        return "↵" if "\n" in written else "␣"
    if repeated:
        return "⋯"  # a further byte of the same letter
    return f"##{plain}" if token.startswith("##") else plain


def _pair(text: str) -> tuple[str, ...]:
    first, sign, second = text.partition(BETWEEN)
    return (first.strip(), second.strip()) if sign else (text,)


def _numbers(texts: Sequence[str]) -> list[_Row]:
    """Read texts that are ids.

    Raises
    ------
    InputError
        There is anything else in them.
    """
    rows = []
    for text in texts:
        words = text.replace(",", " ").strip("[] ").split()
        if not words or not all(word.isdecimal() for word in words):
            raise InputError(
                f"--text {text!r:.60} needs a tokenizer: give its file with --tokenizer tokenizer.json, or put it"
                " beside the model; or give ids, --text '101 7592 102'"
            )
        rows.append(_row([int(word) for word in words]))
    return rows


def _positions(mask: NDArray[Any]) -> NDArray[np.int64]:
    """Positions (N, T): 0, 1, ... from the first token that is seen, so that filling up at the left changes nothing."""
    first = mask.argmax(axis=1)[:, None]
    return np.maximum(np.arange(mask.shape[1]) - first, 0)


def read_tokenizer(path: Path) -> Any:
    """Read a ``tokenizer.json``, or the one in a folder.

    Raises
    ------
    MissingExtra
        The package `tokenizers` isn't installed.
    InputError
        No such file, or it holds no tokenizer.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: no such file; --tokenizer takes the tokenizer.json that belongs to the model")
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("--text needs the package tokenizers: pip install 'onnx-inspect[text]'") from None
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain exceptions of its own
        found = " ".join(str(error).split())[:120]
        raise InputError(f"{file} is no tokenizer of the `tokenizers` library (tokenizer.json): {found}") from error


def beside(model: str) -> Path | None:
    """Find the tokenizer that lies beside a model: ``NAME.tokenizer.json``, or ``tokenizer.json``."""
    place = Path(model)
    for path in (place.with_suffix(".tokenizer.json"), place.parent / "tokenizer.json"):
        if path.is_file():
            return path
    return None


def read_texts(words: Sequence[str]) -> list[str]:
    """Texts as they were given; ``@FILE`` stands for a text on each of its lines.

    Raises
    ------
    InputError
        The file can't be read.
    """
    texts: list[str] = []
    for word in words:
        if not word.startswith("@") or not Path(word[1:]).is_file():
            texts.append(word)
            continue
        try:
            lines = Path(word[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{word[1:]} can't be read as text, one a line: {error}") from error
        texts += [line for line in lines if line.strip()]
    return texts
