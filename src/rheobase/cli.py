"""The ``rheobase`` command line; what its subcommands do stands in `rheobase.commands`.

An error of the library becomes one line on stderr and exit status 2; ``--traceback`` shows where it
came from.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from rheobase._errors import unknown_name
from rheobase.commands import COMMANDS

__all__ = ["main"]

# What the library raises at the door; anything else is a bug and keeps its traceback.
_EXPECTED = (
    ArithmeticError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0 is good, 2 an error, 130 Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in words
    arguments = [word for word in words if word != "--traceback"]
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interrupt:
        print(f"rheobase: {_one_line(interrupt)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; keep Python from complaining when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _EXPECTED as error:
        if traceback:
            raise
        print(f"rheobase: {_one_line(error)}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise ValueError(unknown_name("command", arguments[0], COMMANDS))
    options = _parser().parse_args(arguments)
    return COMMANDS[options.command].run(options)


def _one_line(error: BaseException) -> str:
    message = str(error)
    if isinstance(error, KeyError) and error.args:
        message = str(error.args[0])  # str() of a KeyError is the repr of its message
    if isinstance(error, OSError) and error.strerror and error.filename:
        message = f"{error.filename}: {error.strerror}"
    return " ".join(message.split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rheobase", description="Large-scale deep spiking neural networks."
    )
    parser.add_argument("--version", action="version", version=f"rheobase {version('rheobase')}")
    _add_traceback(parser)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_traceback(subparser)
        command.arguments(subparser)
    return parser


def _add_traceback(parser: argparse.ArgumentParser) -> None:
    # For --help alone: `main` takes it out, wherever it stands.
    parser.add_argument("--traceback", action="store_true", help="show where an error arose")


if __name__ == "__main__":
    sys.exit(main())
