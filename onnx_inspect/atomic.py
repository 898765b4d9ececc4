"""How files are written: beside their final place, then renamed, so that a failure leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnx_inspect.errors import OutputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The temporary name keeps the suffix. Missing parent folders are made, links are followed. What is no file (a pipe, a
    terminal, ``/dev/null``) gets the contents at the end, instead of being replaced.

    Raises
    ------
    OutputError
        The place can't be written.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder; name a file in it")
        final = path.resolve() if path.is_symlink() else path
        stream = final.exists() and not final.is_file()
        if not stream:
            final.parent.mkdir(parents=True, exist_ok=True)
        folder = None if stream else final.parent
        handle, name = tempfile.mkstemp(prefix=".onnx-inspect-", suffix=final.suffix, dir=folder)
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        if stream:
            with temporary.open("rb") as source, final.open("wb") as target:
                shutil.copyfileobj(source, target)
        else:
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(final)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"can't write {path}: {error.strerror or error}; choose another place with --out")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
