"""What can go wrong, as one tree: each error says what, where, and what to do; the CLI prints it as one line."""

from __future__ import annotations


class InspectError(Exception):
    """Anything the user can mend; `kind` names it in JSON, `exit_code` is the process's."""

    exit_code = 2

    @property
    def kind(self) -> str:
        """The error's name in `--json` output, for instance ``LayerError``."""
        return type(self).__name__


class ModelError(InspectError):
    """The model file is missing its content, broken, or not a valid ONNX model."""

    exit_code = 3


class LayerError(InspectError):
    """A layer that is not in the model, or that can't serve what was asked of it."""


class InputError(InspectError):
    """An input that can't be read, or that doesn't fit the model."""


class StrangersError(InputError):
    """Two models of which nothing corresponds, so that they can't be compared layer by layer."""


class TargetError(InspectError):
    """A target (class, label, output) that the model doesn't have."""


class MethodError(InspectError):
    """An unknown method or parameter, or a method that can't apply to this model."""


class OutputError(InspectError):
    """A result that can't be written where it was asked for."""


class MissingExtra(InspectError):
    """An optional package that isn't installed; the message names the extra to install."""


class ProviderError(InspectError):
    """An execution provider that isn't available here."""

    exit_code = 4


class RunError(InspectError):
    """The runtime refused to load or to run the model."""

    exit_code = 4
