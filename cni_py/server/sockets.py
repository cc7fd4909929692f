"""What a server that executes itself anew passes on to itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.kernel.sockets import FIRST_PASSED_FD

if TYPE_CHECKING:
    import socket


def pass_on(sockets: list[socket.socket]) -> dict[str, str]:
    """Put `sockets` where `passed_sockets` finds them after exec; returns its environment."""
    # Out of the way first: one may lie where another has to go.
    moved = [os.dup(one.fileno()) for one in sockets]
    high = [os.dup2(fd, 100 + index) for index, fd in enumerate(moved)]
    for index, fd in enumerate(high):
        os.dup2(fd, FIRST_PASSED_FD + index, inheritable=True)
        os.close(fd)
    return {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}


def children() -> set[int]:
    """The process ids of this process's children (proc(5)); none on a kernel that lists none."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as file:
            return {int(one) for one in file.read().split()}
    except FileNotFoundError:
        return set()
