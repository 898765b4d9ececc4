"""One array in a .npy file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError

SUFFIXES = (".npy",)
PICTURES = False


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Read the array; pickled objects are refused.

    Returns
    -------
    dict
        One entry under "", for the file doesn't name its array.

    Raises
    ------
    InputError
        Missing, truncated, not an .npy file, or Python objects inside.
    """
    try:
        with path.open("rb") as stream:
            return {"": np.lib.format.read_array(stream, allow_pickle=False)}
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:  # a bad header, objects, or too few bytes
        raise InputError(f"{path} is not a readable .npy array: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
