"""The transport: dumps that the kernel marks as interrupted, reports that it had no room for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fixtures.host import Host

_STABLE = 300

# Lists the links again and again, and counts the attempts.
_LIST = """
import json, sys
from cni_py.kernel import links
from cni_py.kernel.netlink import Netlink

class Counting(Netlink):
    attempts = 0
    def _dump_once(self, request):
        self.attempts += 1
        return super()._dump_once(request)

with Counting() as netlink:
    for number in range(1, 2001):
        names = {one.name for one in links.dump(netlink)}
        missing = [f"s{index}" for index in range(STABLE) if f"s{index}" not in names]
        if missing or netlink.attempts > number + 3:
            break
print(json.dumps([missing, netlink.attempts - number]))
""".replace("STABLE", str(_STABLE))

# Joins the group, lets it overflow, and reads.
_OVERFLOW = """
import time
from cni_py.kernel import links
from cni_py.kernel.netlink import RTMGRP_LINK, Netlink
with Netlink(RTMGRP_LINK) as events, Netlink() as netlink:
    events._socket.setsockopt(1, 8, 2048)
    for number in range(300):
        netlink.submit(links.change("s0", ("IFLA_TXQLEN", 100 + number)))
    reports = events.events(time.monotonic() + 20)
    print(any(body == b"" for body in (next(reports) for _ in range(30))))
"""

# One thread hears reports while others ask: each has to get its own answers.
_THREADS = """
import threading, time
from cni_py.kernel import links
from cni_py.kernel.netlink import RTMGRP_LINK, Netlink
wrong, over = [], threading.Event()

def ask(name):
    with Netlink() as netlink:
        for number in range(400):
            netlink.submit(links.change(name, ("IFLA_TXQLEN", 100 + number)))
            found = links.get(netlink, name)
            if (found.name, found.queue_length) != (name, 100 + number):
                wrong.append((name, number, found.name))

def hear():
    with Netlink(RTMGRP_LINK) as events:
        while not over.is_set():
            list(events.pending())

threads = [threading.Thread(target=ask, args=(f"s{index}",), daemon=True) for index in range(3)]
threading.Thread(target=hear, daemon=True).start()
for one in threads:
    one.start()
for one in threads:
    one.join(30)
over.set()
print(wrong, [one.is_alive() for one in threads])
"""


@pytest.fixture
def busy(host: Host) -> Host:
    """A host with many links."""
    lines = "".join(f"link add s{index} type bridge\n" for index in range(_STABLE))
    host.run("ip", "-batch", "-", stdin=lines)
    return host


@pytest.mark.slow
def test_interrupted_dump(busy: Host) -> None:
    """[W-G6] While links come and go, a list has all of those that stay."""
    churn = "while :; do ip link add x1 type bridge; ip link delete x1; done"
    changing = subprocess.Popen([*busy.prefix, "sh", "-c", churn])
    try:
        listed = busy.run(sys.executable, "-I", "-c", _LIST)
    finally:
        changing.kill()
        changing.wait()
    missing, again = json.loads(listed.stdout)
    assert missing == []
    # Otherwise nothing was interrupted, and this test has tested nothing.
    assert again > 0


def test_reports_without_room(busy: Host) -> None:
    """The waiting goes on, and looks for itself."""
    assert busy.run(sys.executable, "-I", "-c", _OVERFLOW).stdout == "True\n"


def test_each_thread_has_its_own_answers(host: Host) -> None:
    """An agent hears the kernel's reports in one thread and changes routes in another."""
    host.run("ip", "-batch", "-", stdin="".join(f"link add s{i} type bridge\n" for i in range(3)))
    told = host.run(sys.executable, "-I", "-c", _THREADS).stdout
    assert told == "[] [False, False, False]\n"


def test_dump_that_fails(busy: Host) -> None:
    """[W-G6] The kernel says so in the message that ends a list."""
    script = (
        "from cni_py.kernel.netlink import Netlink, Request\n"
        "from cni_py.spec.errors import CniError\n"
        "with Netlink() as netlink:\n"
        "    try:\n"
        # RTM_GETNEIGH with a link in its header, which strict checking refuses.
        "        netlink.dump(Request('list', 30, bytes((2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0))))\n"
        "    except CniError as error:\n"
        "        print(error)\n"
    )
    assert busy.run(sys.executable, "-I", "-c", script).stdout.startswith("list: Invalid argument")
