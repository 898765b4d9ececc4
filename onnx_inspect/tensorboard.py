"""How results reach TensorBoard: event files of scalars, histograms, pictures and text, and the projector's files."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.atomic import replacing
from onnx_inspect.errors import InputError, MissingExtra, OutputError

POINTS = 100_000  # that the projector loads
SPRITE = 8192  # pixels of a side of the picture that holds all thumbnails
BUCKETS = 30  # of a histogram, as TensorBoard's own writers make them


class Writer:
    """An event file in `folder`, one run of TensorBoard; a context manager.

    Raises
    ------
    MissingExtra
        TensorBoard isn't installed.
    OutputError
        The folder can't be written.
    """

    def __init__(self, folder: str | Path) -> None:
        require()
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = EventFileWriter(str(folder))
        except OSError as error:
            raise _unwritable(folder, error) from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is still waiting, and close the file."""
        self._file.close()

    def scalar(self, tag: str, value: float, step: int = 0) -> None:
        """One number of a curve."""
        self._add("scalar", tag, np.float32(value), step)

    def histogram(self, tag: str, values: NDArray[Any], step: int = 0) -> None:
        """Count values in 30 buckets of equal width; NaN and infinities are left out."""
        real = np.asarray(values, np.float64).ravel()
        real = real[np.isfinite(real)]
        counts, edges = np.histogram(real, BUCKETS) if real.size else (np.zeros(0), np.zeros(1))
        self._add("histogram", tag, np.stack([edges[:-1], edges[1:], counts], axis=1), step)  # (k, 3)

    def image(self, tag: str, picture: NDArray[np.uint8], step: int = 0) -> None:
        """One picture, (H, W, 3), uint8."""
        height, width = picture.shape[:2]
        content = [str(width).encode(), str(height).encode(), _png(picture)]
        self._add("image", tag, np.array(content, object), step)

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Text in Markdown."""
        self._add("text", tag, np.array([text.encode()], object), step)

    def _add(self, plugin: str, tag: str, value: Any, step: int) -> None:
        import importlib

        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.util import tensor_util

        metadata = importlib.import_module(f"tensorboard.plugins.{plugin}.metadata")
        described = metadata.create_summary_metadata(display_name="", description="")
        entry = summary_pb2.Summary.Value(tag=tag, metadata=described, tensor=tensor_util.make_tensor_proto(value))
        summary = summary_pb2.Summary(value=[entry])
        self._file.add_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))


def projector(
    folder: str | Path,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Sequence[Any]],
    thumbnails: NDArray[np.uint8] | None = None,
) -> tuple[str, ...]:
    """Write what TensorBoard's projector shows of N samples: points, their columns of words, and thumbnails.

    The projector loads 100,000 points, and thumbnails in one picture of 8192 x 8192 pixels: of more points every k-th
    is written, larger thumbnails are made smaller. Values that aren't finite become 0.

    Parameters
    ----------
    folder : str or Path
        A run's folder; its ``projector_config.pbtxt`` is replaced.
    tensors : mapping of name to ndarray, (N, D)
    metadata : mapping of column name to sequence of N
    thumbnails : ndarray, (N, h, w, 3), uint8, optional

    Returns
    -------
    tuple of str
        What the projector's limits changed, one line each.

    Raises
    ------
    MissingExtra
        TensorBoard isn't installed.
    InputError
        The parts hold different numbers of samples, or none.
    OutputError
        The folder can't be written.
    """
    require()
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    count = _count(tensors, metadata, thumbnails)
    step, notes, folder = math.ceil(count / POINTS), [], Path(folder)
    if step > 1:
        kept = math.ceil(count / step)
        notes.append(f"projector: {kept:,} of {count:,} points, one of every {step}, for it loads at most {POINTS:,}")
    config = ProjectorConfig()
    for number, (name, tensor) in enumerate(tensors.items()):
        entry = config.embeddings.add(tensor_name=name, tensor_path=f"points-{number}.tsv")
        rows, lost = _finite(tensor[::step])
        notes += [f"projector: {lost:,} values of {name!r} aren't finite and became 0"] if lost else []
        with replacing(folder / entry.tensor_path) as temporary:
            np.savetxt(temporary, rows, fmt="%.7g", delimiter="\t")
        if metadata:
            entry.metadata_path = "metadata.tsv"
        if thumbnails is not None:
            entry.sprite.image_path = "sprite.png"
    if metadata:
        _write(folder / "metadata.tsv", _table(metadata, step))
    if thumbnails is not None:
        tiles, note = _reduced(thumbnails[::step])
        notes += [note] if note else []
        for entry in config.embeddings:
            entry.sprite.single_image_dim.extend([tiles.shape[2], tiles.shape[1]])
        with replacing(folder / "sprite.png") as temporary:
            temporary.write_bytes(_png(_sheet(tiles)))
    _write(folder / "projector_config.pbtxt", text_format.MessageToString(config))
    return tuple(notes)


def require() -> None:
    """Make sure that TensorBoard is there: to be called before work whose result goes to it.

    Raises
    ------
    MissingExtra
        It isn't installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("writing for TensorBoard needs it: pip install 'onnx-inspect[tensorboard]'") from error


def _count(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Sequence[Any]], thumbnails: NDArray[np.uint8] | None
) -> int:
    parts = {repr(name): len(part) for name, part in tensors.items()}
    parts |= {repr(name): len(part) for name, part in metadata.items()}
    parts |= {"thumbnails": len(thumbnails)} if thumbnails is not None else {}
    if len(set(parts.values())) != 1 or not tensors or 0 in parts.values():
        raise InputError(f"the projector needs as many points as words and thumbnails of them, at least one: {parts}")
    return next(iter(parts.values()))


def _finite(tensor: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
    values = np.asarray(tensor, np.float32)
    bad = ~np.isfinite(values)
    return np.where(bad, np.float32(0), values), int(bad.sum())


def _table(metadata: Mapping[str, Sequence[Any]], step: int) -> str:
    """Tab-separated columns; the projector takes the first line for a header only where there are several."""
    columns = [[_word(name), *map(_word, values[::step])] for name, values in metadata.items()]
    rows = list(zip(*columns, strict=True))
    return "".join("\t".join(row) + "\n" for row in (rows if len(columns) > 1 else rows[1:]))


def _word(value: Any) -> str:
    """Text without tabs and line breaks; never empty, for the projector drops empty lines."""
    return " ".join(str(value).split()) or "-"


def _reduced(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], str]:
    """Thumbnails that fit the sheet, and what was done to them."""
    from PIL import Image

    across = math.ceil(math.sqrt(len(thumbnails)))
    height, width = thumbnails.shape[1:3]
    most = SPRITE // across
    if max(height, width) <= most:
        return thumbnails, ""
    scale = most / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    made = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in thumbnails]
    return np.stack(made), (
        f"projector: thumbnails made smaller, from {width}x{height} to {size[0]}x{size[1]}, for all must fit in"
        f" {SPRITE}x{SPRITE} pixels"
    )


def _sheet(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All thumbnails in one picture, row by row."""
    across = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / across)
    count, height, width, channels = tiles.shape
    canvas = np.full((rows * across, height, width, channels), 255, np.uint8)
    canvas[:count] = tiles
    grid = canvas.reshape(rows, across, height, width, channels).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, across * width, channels)


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", compress_level=2)
    return buffer.getvalue()


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _unwritable(folder: str | Path, error: OSError) -> OutputError:
    return OutputError(f"can't write {folder}: {error.strerror or error}; choose another folder")
