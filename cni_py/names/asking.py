"""Asking a network's own server, which answers at once or not at all."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from cni_py.kernel import interruption
from cni_py.spec.addresses import parse_ip

from . import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.spec.addresses import IP

    from .messages import Answer

PORT = 53
# Between two questions: each begins with the server's having looked into its folder.
_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.1
_ANSWER_SECONDS = 0.5
_MOST_BYTES = 1 << 16


def ask(server: str, name: str, address: IP, seconds: float = _ANSWER_SECONDS) -> Answer | None:
    """What the server at an address of this host answers for a name and such addresses.

    None where nobody answers in time. Raises Interrupted.
    """
    kind = messages.kind_of(address)
    number = int.from_bytes(os.urandom(2))
    family = socket.AF_INET if parse_ip(server).version == 4 else socket.AF_INET6
    deadline = time.monotonic() + seconds
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            asked.connect((server, PORT))
            asked.send(messages.question(number, name, kind))
            while (left := deadline - time.monotonic()) > 0:
                asked.settimeout(left)
                with interruption.waiting():
                    received = asked.recv(_MOST_BYTES)
                found = messages.answer(received, number, kind)
                if found is not None:
                    return found
        except (OSError, ValueError):
            # Nobody listens there, yet; or somebody who speaks otherwise.
            return None
    return None


def wait(
    server: str, name: str, address: IP, wanted: Callable[[Answer], bool], seconds: float
) -> Answer | None:
    """Ask until the answer is as wanted, or the time is over; the last answer, None without one.

    Raises Interrupted.
    """
    deadline = time.monotonic() + seconds
    pause = _PAUSE_SECONDS
    while True:
        left = deadline - time.monotonic()
        found = ask(server, name, address, min(_ANSWER_SECONDS, max(left, _PAUSE_SECONDS)))
        if found is not None and wanted(found):
            return found
        if left <= 0:
            return found
        with interruption.waiting():
            time.sleep(min(pause, max(left, 0.0)))
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
