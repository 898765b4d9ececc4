"""What the modules of a PyTorch model return while it runs, and how they become its outputs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

from onnx_inspect.errors import InputError, LayerError

Captured = dict[str, Any]  # module path -> tensor


@contextmanager
def still(network: Any) -> Iterator[None]:
    """Hold the model in evaluation mode, attention written out; put both back afterwards."""
    import torch

    training = {module: module.training for module in network.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    network.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, was in training.items():
            module.training = was


@contextmanager
def watched(network: Any, paths: Sequence[str] | None = None) -> Iterator[Captured]:
    """Collect what modules return while the model runs: all of them, or those at `paths`.

    Results are cloned, because a later operation may change them in place.
    """
    captured: Captured = {}

    def hook(path: str) -> Callable[[Any, Any, Any], None]:
        def keep(_module: Any, _arguments: Any, result: Any) -> None:
            for tensor in leaves(result):
                number = sum(key.split("#")[0] == path for key in captured)
                captured[f"{path}#{number}" if number else path] = tensor.clone()

        return keep

    with ExitStack() as stack:
        for path, module in network.named_modules():
            if path and (paths is None or path in paths):
                stack.callback(module.register_forward_hook(hook(path)).remove)
        yield captured


@contextmanager
def returning(network: Any, exposed: Sequence[str]) -> Iterator[None]:
    """Make the model return its outputs and then the exposed values, as one flat tuple."""
    paths = {key.split("#")[0] for key in exposed}
    with watched(network, sorted(paths)) as captured:

        def begin(_module: Any, _arguments: Any) -> None:
            captured.clear()

        def end(_module: Any, _arguments: Any, result: Any) -> tuple[Any, ...]:
            return (*leaves(result), *[captured[key] for key in exposed])

        with ExitStack() as stack:
            stack.callback(network.register_forward_pre_hook(begin).remove)
            stack.callback(network.register_forward_hook(end).remove)
            yield


def leaves(result: Any) -> list[Any]:
    """Tensors of a module's result, in order, however it nests them."""
    import torch

    if isinstance(result, torch.Tensor):
        return [result]
    parts = result.values() if isinstance(result, Mapping) else result if isinstance(result, (list, tuple)) else ()
    return [leaf for part in parts for leaf in leaves(part)]


def resolve(network: Any, layers: Sequence[str], sample: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the values that `layers` stand for, in the order in which the model computes them.

    Raises
    ------
    LayerError
        A layer is no module of the model, or its forward is never called.
    """
    with watched(network) as captured:
        call(network, sample)
    paths = [path for path, _ in network.named_modules() if path]
    wanted: set[str] = set()
    for text in layers:
        matching = {path for path in paths if path == text or fnmatchcase(path, text)}
        if not matching:
            near = difflib.get_close_matches(text, paths, n=3, cutoff=0.4) or paths[-3:]
            raise LayerError(
                f"layer {text!r} is no module of {type(network).__name__} ({len(paths)} modules);"
                f" closest: {', '.join(map(repr, near))}"
            )
        called = {path for path in matching if path in captured}
        if not called:
            raise LayerError(
                f"layer {text!r} of {type(network).__name__} returns no tensor: its forward is never called;"
                " name the module around it"
            )
        wanted |= called
    return tuple(key for key in captured if key.split("#")[0] in wanted)


def call(network: Any, sample: Mapping[str, Any]) -> Any:
    """Run the model on a sample.

    Raises
    ------
    InputError
        The model can't take it.
    """
    try:
        return network(*arguments(network, sample))
    except Exception as error:  # the user's own code runs here and may raise anything
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in sample.items())
        message = (str(error).strip().splitlines() or ["no message"])[0][:200]
        raise InputError(
            f"{type(network).__name__} can't take {shapes} ({type(error).__name__}: {message}):"
            " give the shape it expects"
        ) from error


def arguments(network: Any, sample: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the sample on the model's own device, in the order of its inputs."""
    device = next((p.device for p in network.parameters()), "cpu")
    return tuple(value.to(device) for value in sample.values())
