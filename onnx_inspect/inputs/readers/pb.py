"""One tensor in a .pb file, as the ONNX test data sets hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnx_inspect.errors import InputError

SUFFIXES = (".pb",)
PICTURES = False


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Read a serialised TensorProto.

    Returns
    -------
    dict
        One entry under the tensor's own name, "" if it has none.

    Raises
    ------
    InputError
        Missing, or not a TensorProto with its data inside.
    """
    import onnx
    from google.protobuf.message import DecodeError

    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        if not tensor.data_type:
            raise InputError(f"{path} is not an ONNX tensor: it has no data type (sequences and maps are not read)")
        return {tensor.name: onnx.numpy_helper.to_array(tensor)}
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    except DecodeError:
        raise InputError(f"{path} is not an ONNX tensor, or it is truncated") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is a broken ONNX tensor: {' '.join(str(error).split())}") from error
