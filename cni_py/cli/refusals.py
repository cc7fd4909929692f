"""What failed, for a person: which plugin of a network, what the code means, what to do next."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from cni_py.runtime import Cancellation, GivenUpError, PluginError, SeveralErrors
from cni_py.spec.errors import CniError, Code, cni_error_of

from .group import INTERRUPTED, Failed
from .output import print_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.runtime import Network

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HINTS = {
    Code.TRY_AGAIN_LATER: "try again",
    Code.PLUGIN_NOT_AVAILABLE: "cni-py doctor says what this host lacks",
    Code.LIMITED_CONNECTIVITY: "containers that it has stay attached",
}


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error. `plugin` and `place` (from 1) are missing where it is of no single plugin."""

    network: str
    code: int
    meaning: str
    msg: str
    details: str = ""
    plugin: str = ""
    place: int = 0
    hint: str = ""
    notes: tuple[str, ...] = ()

    def line(self, plugins: int) -> str:
        """The same in one line; the network has `plugins`."""
        where = f"plugin {self.place} of {plugins}, {self.plugin}: " if self.plugin else ""
        said = "; ".join(filter(None, (self.msg, self.details)))
        text = f"{where}{said} (code {self.code}, {self.meaning})"
        return "; ".join([text, *self.notes, *filter(None, (self.hint,))])


def refusal(error: CniError, network: Network, hint: str = "") -> Refusal:
    """What is known of an error."""
    plugin, place = (error.type, error.index + 1) if isinstance(error, PluginError) else ("", 0)
    if error.msg.startswith("failed to find plugin"):
        hint = "cni-py install FOLDER writes ours; --cni-path or CNI_PATH names the folders"
    return Refusal(
        network=network.name,
        code=error.code,
        meaning=meaning(error.code),
        msg=error.msg,
        details=error.details,
        hint=hint or _HINTS.get(error.code, ""),  # type: ignore[call-overload]
        notes=tuple(getattr(error, "__notes__", ())),
        plugin=plugin,
        place=place,
    )


def meaning(code: int) -> str:
    """A code in words."""
    try:
        return Code(code).name.lower().replace("_", " ")
    except ValueError:
        return "the plugin's own"


@contextmanager
def told(network: Network, *, as_json: bool, hint: str = "") -> Iterator[Cancellation]:
    """Run the block until a signal gives it up; tell what fails in it. Raises Failed, Exit."""
    cancellation = Cancellation()
    # What nohup has ignored stays so.
    heard = [one for one in _SIGNALS if signal.getsignal(one) not in (signal.SIG_IGN, None)]
    previous = {one: signal.signal(one, lambda *_: cancellation.cancel()) for one in heard}
    try:
        yield cancellation
    except GivenUpError as error:
        lines = [error.msg, *getattr(error, "__notes__", ())]
        command = click.get_current_context().command_path
        click.echo(f"{command}: {printable('; '.join(lines))}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except (CniError, OSError) as error:
        several = error.errors if isinstance(error, SeveralErrors) else (cni_error_of(error),)
        refusals = [refusal(one, network, hint) for one in several]
        if as_json:
            print_json({"errors": refusals})
        raise Failed(" | ".join(one.line(len(network.plugins)) for one in refusals)) from error
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)
