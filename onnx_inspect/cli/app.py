"""The program `onnx-inspect`: finds its commands by file name, and turns every error into one line and an exit code."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from onnx_inspect import discover
from onnx_inspect._version import __version__
from onnx_inspect.errors import InspectError

COMMANDS = "onnx_inspect.cli"


class Commands(click.Group):
    """A group whose commands are this package's files; a command is imported when it is used or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return [name for name in discover.names(COMMANDS) if name != "app"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = discover.load(COMMANDS, cmd_name).command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="onnx-inspect")
def group() -> None:
    """See what any ONNX network sees, on a CPU, without a training framework.

    \b
    Try it:        onnx-inspect demo
    Look inside:   onnx-inspect summary net.onnx
    Explain:       onnx-inspect cam net.onnx photo.jpg
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit: 0 ok, 1 a difference found, 2 usage or input, 3 invalid model, 4 runtime."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a library's advice to programmers is no message for users
    try:
        code = group.main(args=given, prog_name="onnx-inspect", standalone_mode=False)
    except InspectError as error:
        _fail(error.kind, str(error), error.exit_code, given)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        hint = f" (see: {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        _fail("UsageError", error.format_message() + hint, 2, given)
    except MemoryError:
        _fail("RunError", "out of memory: use fewer or smaller inputs, or fewer layers at once", 4, given)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(kind: str, message: str, code: int, given: Sequence[str]) -> NoReturn:
    line = " ".join(message.split())
    if "--json" in given:
        click.echo(json.dumps({"error": {"kind": kind, "message": line}}))
    click.echo(f"onnx-inspect: {line}", err=True)
    sys.exit(code)
