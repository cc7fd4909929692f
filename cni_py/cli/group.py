"""The command line's frame: finds commands, and says in one line what went wrong."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from cni_py.spec.errors import CniError, cni_error_of
from cni_py.spec.texts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a shell shows of a program that an interrupt has ended: 128 and the signal's number.
INTERRUPTED = 130

# Characters of a text that are shown on both sides of one that cannot be.
_AROUND = 40


class Failed(click.ClickException):
    """A command failed: its message becomes the one line on stderr, and 1 the exit status."""

    exit_code = 1


class Unreadable(click.ClickException):
    """What a command was given cannot be read or understood: exit status 2."""

    exit_code = 2


class CommandGroup(click.Group):
    """A group that tells what its command raises for its user, in one line on stderr.

    That are CniError, OSError and click's exceptions; a defect of ours keeps its traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what failed is told with the command's name."""
        try:
            return super().invoke(ctx)
        except (click.UsageError, BrokenPipeError):
            raise
        except click.ClickException as error:
            refusal = error
        except UnicodeEncodeError as error:
            # An argument, or a file's name: Python holds what is not UTF-8 as lone surrogates.
            around = error.object[max(0, error.start - _AROUND) : error.end + _AROUND]
            refusal = Unreadable(f"{around!r} is not UTF-8")
        except (CniError, OSError) as error:
            refusal = Failed(str(cni_error_of(error)))
        status = _refused(f"{ctx.command_path} {ctx.invoked_subcommand}", refusal, "")
        raise click.exceptions.Exit(status)


class CommandLine(CommandGroup):
    """A group whose commands are imported when they are called or listed.

    `commands_in` has `module:command` for each name, the module within this package.
    """

    def __init__(self, *args: Any, commands_in: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._commands_in = commands_in

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command's name."""
        return sorted(self._commands_in)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of a name, None for an unknown one."""
        place = self._commands_in.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(import_module(f"{__package__}.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name. Raises UsageError with a suggestion."""
        name = args[0] if args else ""
        if args and not name.startswith("-") and name not in self._commands_in:
            alike = get_close_matches(name, self.list_commands(ctx), n=1)
            asked = f"did you mean {alike[0]}?" if alike else "cni-py --help lists the commands"
            raise click.UsageError(f"no command is named {name!r}: {asked}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        _print_anything()
        extra = {"prog_name": self.name, **extra, "standalone_mode": False}
        try:
            status = super().main(*args, **extra)
        except NoArgsIsHelpError as error:
            error.show()
            status = error.exit_code
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else str(self.name)
            status = _refused(command, error, f" ({command} --help)")
        except click.Abort as error:
            # Of an interrupt click has ended the line; of a question that is not answered nobody.
            if not isinstance(error.__cause__, KeyboardInterrupt):
                click.echo(err=True)
            status = INTERRUPTED
        except OSError as error:
            # Of what click itself prints, such as a help: the commands' are told below.
            status = _refused(str(self.name), Failed(error.strerror or str(error)), "")
        finally:
            _drop_unwritten()
        sys.exit(status if isinstance(status, int) else 0)


def _refused(command: str, error: click.ClickException, hint: str) -> int:
    # It may have others' texts in it, such as a plugin's or a file's name.
    message = " ".join(error.format_message().split())
    click.echo(printable(f"{command}: {message}{hint}"), err=True)
    return error.exit_code


def _drop_unwritten() -> None:
    """What a full disk did not take has been told: Python would try again at its end, and tell."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_anything() -> None:
    """Have characters that the locale's encoding lacks written out, and names' own bytes kept."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            utf8 = stream.encoding.lower() in ("utf-8", "utf8")
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
