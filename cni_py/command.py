"""The executable `cni-py`."""

from __future__ import annotations

import signal


def main() -> None:
    """Load the command line and run it: an interrupt meanwhile ends it without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main as command_line

    signal.signal(signal.SIGINT, handler)
    command_line()
