"""What every layer of a PyTorch network makes of a sample, in order, and which layers each one reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters._contract import Step, Trace
from exporters._hooks import call, leaves, still

# The ONNX operator that does a module's work; others go by their own class's name.
OPERATORS = {
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), "Conv"),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), "BatchNormalization"),
    **dict.fromkeys(("ReLU", "ReLU6", "Hardtanh"), "Relu"),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d", "MaxPool3d"), "MaxPool"),
    **dict.fromkeys(("AvgPool1d", "AvgPool2d", "AvgPool3d"), "AveragePool"),
    **dict.fromkeys(("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"), "ReduceMean"),
    **dict.fromkeys(("Dropout", "Dropout2d", "Identity"), "Identity"),
    "Linear": "Gemm",
    "LayerNorm": "LayerNormalization",
    "Embedding": "Gather",
    "GELU": "Gelu",
    "SiLU": "Swish",
}


class Layers:
    """A network made ready to be looked at, layer by layer; it is kept in evaluation mode while it runs."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> Trace:
        """Run the network on arrays in the order of its inputs."""
        import torch

        given = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
        values: dict[str, NDArray[Any]] = {}
        steps: list[Step] = []
        made: dict[tuple[int, int], str] = {(id(t), t._version): name for name, t in given.items()}
        kept: list[Any] = list(given.values())  # as long as a tensor lives nothing else has its id
        read: dict[str, list[str]] = {}

        def before(path: str) -> Callable[[Any, Any], None]:
            def note(_module: Any, arguments: Any) -> None:  # before it works in place
                read[path] = [made[key] for t in leaves(arguments) if (key := (id(t), t._version)) in made]

            return note

        def hook(path: str) -> Callable[[Any, Any, Any], None]:
            def keep(module: Any, _arguments: Any, result: Any) -> None:
                for tensor in leaves(result):
                    number = sum(step.name.split("#")[0] == path for step in steps)
                    name = f"{path}#{number}" if number else path
                    key = (id(tensor), tensor._version)
                    passed = made.get(key)  # a container gives what its last part gave
                    kind = OPERATORS.get(type(module).__name__, type(module).__name__)
                    reads = (passed,) if passed is not None else tuple(dict.fromkeys(read[path]))
                    steps.append(Step(name, "Identity" if passed is not None else kind, reads))
                    values[name] = _numpy(tensor)
                    made.setdefault(key, name)
                    kept.append(tensor)

            return keep

        with ExitStack() as stack, still(self.network), torch.no_grad():
            for path, module in self.network.named_modules():
                if path:
                    stack.callback(module.register_forward_pre_hook(before(path)).remove)
                    stack.callback(module.register_forward_hook(hook(path)).remove)
            result = call(self.network, given)
        outputs: dict[str, NDArray[Any]] = {}
        for number, tensor in enumerate(leaves(result)):
            name = made.get((id(tensor), tensor._version), f"output_{number}" if number else "output")
            if name not in values:
                values[name] = _numpy(tensor)
                steps.append(Step(name, "Output", ()))
            outputs[name] = values[name]
        return Trace(steps=tuple(steps), values=values, outputs=outputs)


def _numpy(tensor: Any) -> NDArray[Any]:
    """A copy, which later operations in place don't change; types that numpy lacks become float32."""
    import torch

    tensor = tensor.detach().cpu()
    narrow = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    array: NDArray[Any] = (tensor.float() if narrow else tensor).numpy().copy()
    return array
