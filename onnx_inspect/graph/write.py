"""How a Model becomes a file again, with its external data beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx

from onnx_inspect.atomic import replacing
from onnx_inspect.errors import OutputError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import external_file, external_tensors


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
    tensors: list[onnx.TensorProto] = external_tensors(model.proto)
    locations = {next(e.value for e in t.external_data if e.key == "location"): t for t in tensors}
    for location, tensor in locations.items():
        source = external_file(tensor, model.folder, model.source)
        target = path.parent / location
        if target.exists():
            if target.resolve() != source and target.stat().st_size != source.stat().st_size:
                raise OutputError(f"{target} exists and is not the data of {model.source}: choose another folder")
            continue
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
