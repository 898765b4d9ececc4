"""Several named arrays in an .npz archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError

SUFFIXES = (".npz",)
PICTURES = False


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays; entries with pickled objects are refused.

    Any name is allowed, also ones with slashes or ``file``, which ``numpy.load`` gets wrong.

    Returns
    -------
    dict
        Name to array, in the archive's order.

    Raises
    ------
    InputError
        Missing, truncated, not an .npz archive, empty, or Python objects inside.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): _entry(archive, name, path) for name in archive.namelist()}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is not a readable .npz archive: {error}") from error
    if not arrays:
        raise InputError(f"{path} holds no arrays")
    return arrays


def _entry(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    try:
        with archive.open(name) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        message = " ".join(str(error).split())
        raise InputError(f"{path}: entry {name!r} is not a readable array: {message}") from error
