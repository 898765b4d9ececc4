"""What the classes are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_inspect.errors import InputError

METADATA_KEY = "onnx_inspect.labels"


def read_labels(path: Path | None, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Read class names from a file, else from the model's metadata key ``onnx_inspect.labels`` (a JSON list).

    A file holds one name per line (blanks at both ends and blank lines at the end are cut; a blank line inside keeps
    its index), or a JSON list, or a JSON object from index to name. A name in JSON may be a list such as
    ``["n01440764", "tench"]``: its last entry counts. An index that a JSON object leaves out is named by its number.

    Returns
    -------
    tuple of str or None
        None where neither says any.

    Raises
    ------
    InputError
        The file can't be read or holds no names.
    """
    if path is None:
        if METADATA_KEY not in metadata:
            return None
        return _from_json(metadata[METADATA_KEY], f"the model's metadata {METADATA_KEY}")
    text = _text(path)
    if text.lstrip().startswith(("[", "{")) and path.suffix.lower() == ".json":
        return _from_json(text, str(path))
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not any(names):
        raise InputError(f"labels {path} is empty: give one class name per line")
    return names


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"labels {path}: no such file; give a text file with one class name per line") from None
    except OSError as error:
        raise InputError(f"labels {path} can't be read: {error.strerror}") from error
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"labels {path} is not text in UTF-8: give one class name per line") from None


def _from_json(text: str, where: str) -> tuple[str, ...]:
    wanted = "it must be a list of names, or an object from index to name"
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"labels in {where} are not JSON ({error}): {wanted}") from None
    if isinstance(values, dict) and values and all(key.isdecimal() for key in values):
        by_index = {int(key): value for key, value in values.items()}
        if max(by_index) > 10 * len(by_index) + 1000:
            raise InputError(f"labels in {where} name index {max(by_index)} but only {len(by_index)} classes")
        return tuple(_name(by_index.get(index, index), where) for index in range(max(by_index) + 1))
    if isinstance(values, list) and values:
        return tuple(_name(value, where) for value in values)
    raise InputError(f"labels in {where} hold {text.strip()[:40]!r}: {wanted}")


def _name(value: Any, where: str) -> str:
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, (dict, list)) or value is None:
        raise InputError(f"labels in {where} hold {value!r} where a name should be")
    return str(value).strip()
