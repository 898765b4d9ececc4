"""How a Model becomes a file again, with its external data beside it."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from onnx_inspect.atomic import replacing
from onnx_inspect.errors import OutputError
from onnx_inspect.graph.external import external_file, external_tensors, location
from onnx_inspect.graph.model import Model


def write(model: Model, path: str | Path) -> None:
    """Write a model; data files that it refers to are copied beside it when it moves to another folder.

    Raises
    ------
    OutputError
        The place can't be written, or a data file of the same name lies there already and holds something else.
    """
    path = Path(path)
    with replacing(path) as temporary:
        _copy_external(model, path)
        temporary.write_bytes(model.proto.SerializeToString())


def _copy_external(model: Model, path: Path) -> None:
    for name, tensor in {location(t): t for t in external_tensors(model.proto)}.items():
        source = external_file(tensor, model.folder, model.source)
        target = path.parent / name
        if target.exists():
            if target.resolve() != source and not filecmp.cmp(source, target, shallow=False):
                raise OutputError(f"{target} exists and is not the data of {model.source}: choose another folder")
            continue
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
