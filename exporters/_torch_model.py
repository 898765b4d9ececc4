"""How ``module.path:factory`` and a weights file become a PyTorch model."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx_inspect.errors import InputError

NESTED = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the weights
WRAPPED = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before each name


def load(source: Any, weights: str | Path | None) -> Any:
    """Make the module: from ``module.path:factory``, a class, a factory, or the module itself; then load its weights.

    Raises
    ------
    InputError
        The factory can't be imported or makes no nn.Module, or the weights don't fit; the message names what.
    """
    import torch

    where = source if isinstance(source, str) else getattr(source, "__name__", type(source).__name__)
    model = _imported(source) if isinstance(source, str) else source
    if isinstance(model, type) or (callable(model) and not isinstance(model, torch.nn.Module)):
        model = _made(model, where)
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"{where} gave a {type(model).__name__}, not a torch.nn.Module: name a factory that returns one"
        )
    if weights is not None:
        _fill(model, _weights(Path(weights)), Path(weights))
    return model


def _imported(text: str) -> Any:
    module_name, _, attribute = text.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{text!r} names no model: write module.path:factory, for instance mynet.models:resnet18")
    with _current_folder_importable():
        try:
            found: Any = importlib.import_module(module_name)
        except Exception as error:  # the user's own code runs here and may raise anything
            raise InputError(f"can't import {module_name!r} ({type(error).__name__}: {_line(error)})") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")]
            raise InputError(f"{module_name} has no {attribute!r}; it has: {', '.join(public[:12])}")
        found = getattr(found, part)
    return found


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _made(factory: Any, where: str) -> Any:
    with _current_folder_importable():
        try:
            return factory()
        except Exception as error:  # the user's own code, as above
            raise InputError(
                f"{where} failed when called without arguments ({type(error).__name__}: {_line(error)}):"
                " name a factory that needs none"
            ) from error


def _weights(path: Path) -> dict[str, Any]:
    """Tensors by name from a file that torch.save wrote."""
    import pickle

    import torch

    if not path.is_file():
        raise InputError(f"{path}: no such file: give the weights that torch.save wrote")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} holds no plain weights ({_line(error)}): save model.state_dict() with torch.save"
        ) from error
    for key in NESTED:
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
            break
    if not isinstance(saved, Mapping) or not all(isinstance(v, torch.Tensor) for v in saved.values()) or not saved:
        raise InputError(f"{path} holds no state_dict: save model.state_dict() with torch.save")
    for prefix in WRAPPED:
        if all(name.startswith(prefix) for name in saved):
            saved = {name.removeprefix(prefix): value for name, value in saved.items()}
    return dict(saved)


def _fill(model: Any, weights: Mapping[str, Any], path: Path) -> None:
    own = model.state_dict()
    problems = [f"no {name!r}" for name in own if name not in weights]
    problems += [f"{name!r}, which the model lacks" for name in weights if name not in own]
    problems += [
        f"{name!r} of shape {tuple(weights[name].shape)} where the model has {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"{path} doesn't fit {type(model).__name__}: it holds {'; '.join(problems[:3])}{more}:"
            " give the weights of this architecture"
        )
    model.load_state_dict(weights)


def _line(error: Exception) -> str:
    """Return an error's first line."""
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
