"""Which plug-ins a package holds: its file names are their registration."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PLUSES = "_plus_plus"  # how a file spells the end of a name such as grad-cam++


def names(package: str) -> list[str]:
    """Names of a package's public modules, with dashes, sorted; nothing but `package` itself is imported.

    Examples
    --------
    >>> "eigen-cam" in names("onnx_inspect.cam")
    True
    """
    roots = importlib.import_module(package).__path__
    found = {path.stem for root in roots for path in Path(root).glob("*.py") if not path.stem.startswith("_")}
    return sorted(stem.replace(PLUSES, "++").replace("_", "-") for stem in found)


def load(package: str, name: str) -> ModuleType:
    """Import the module `name` (dashes allowed) of `package`.

    Raises
    ------
    KeyError
        No such module; the argument is the name asked for.
    """
    module = f"{package}.{name.replace('-', '_').replace('++', PLUSES)}"
    if "_" not in name and module in sys.modules:
        return sys.modules[module]
    if name not in names(package):
        raise KeyError(name)
    return importlib.import_module(module)
