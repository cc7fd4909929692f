"""What goes wrong when a runtime has a network's plugins called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Sequence

# libcni's words for the verbs, in its errors.
_STEPS = {"ADD": "add", "CHECK": "check", "DEL": "delete", "GC": "gc", "STATUS": "status"}


class PluginError(CniError):
    """One plugin of a network failed: `code`, `msg` and `details` are its own.

    `type` is the plugin's, `index` its place in the network from 0, `verb` what it was asked for.
    """

    def __init__(self, error: CniError, type_: str, index: int, verb: str) -> None:
        super().__init__(error.code, error.msg, error.details)
        self.type = type_
        self.index = index
        self.verb = verb

    def __str__(self) -> str:
        step = _STEPS.get(self.verb, self.verb)
        return f'plugin type="{self.type}" failed ({step}): {super().__str__()}'


class GivenUpError(CniError):
    """The caller gave up (`Cancellation.cancel`): the plugin that ran has been ended."""

    def __init__(self, what: str) -> None:
        super().__init__(Code.TRY_AGAIN_LATER, f"{what} was given up")


class SeveralErrors(CniError):  # noqa: N818 - what it is
    """All that went wrong, one thing or more: the code is the first one's."""

    def __init__(self, errors: Sequence[CniError]) -> None:
        super().__init__(errors[0].code, "; ".join(map(str, errors)))
        self.errors = tuple(errors)
