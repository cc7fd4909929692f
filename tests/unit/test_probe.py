"""What the probe of `cni-py trace --live` takes for its answer."""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import ip_address

import pytest

from cni_py.kernel.probe import _pinged

SIX = ip_address("fd00::2")


def test_only_its_own_echo_is_an_answer():
    """What is too short, or answers another program's echo, is passed over."""
    probe, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    identity = os.getpid() & 0xFFFF
    with probe, other:
        for data in (b"", b"\x81", struct.pack("!BBHH", 129, 0, 0, identity ^ 1)):
            other.send(data)
        with pytest.raises(TimeoutError):
            _pinged(probe, SIX, time.monotonic() + 0.05)
        other.send(struct.pack("!BBHH", 129, 0, 0, identity))
        assert _pinged(probe, SIX, time.monotonic() + 60).kind == "answered"


def test_others_echoes_do_not_keep_it_waiting():
    """Each of them came in time, and the limit is for all of it."""
    probe, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with probe, other:
        other.send(b"\x81" * 20)
        with pytest.raises(TimeoutError):
            _pinged(probe, SIX, time.monotonic() - 1)
