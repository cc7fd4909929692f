"""dhcp's plugin without a daemon: configurations of every kind (plugins.md 5.3.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.dhcp import command
from cni_py.ipam import dhcp
from cni_py.spec.call import gate_version, read_request, typed_call
from cni_py.spec.environment import Environment, read_environment
from cni_py.spec.errors import CniError
from cni_py.spec.versions import ALL

NOWHERE = "/nonexistent/dhcp.sock"
ENVIRON = {
    "CNI_COMMAND": "STATUS",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}


def environment(verb: str) -> Environment:
    return read_environment(ENVIRON | {"CNI_COMMAND": verb})


def refused(verb: str, ipam: Any, args: str = "") -> CniError:
    """The error of a call: there is always one, for nobody listens."""
    config = {"cniVersion": "1.1.0", "name": "net1", "type": "dhcp", "ipam": ipam}
    environ = ENVIRON | {"CNI_COMMAND": verb, "CNI_ARGS": args}
    request = read_request(environment(verb), environ, json.dumps(config).encode())
    with pytest.raises(CniError) as caught:
        dhcp.status(typed_call(gate_version(request, ALL), dhcp.Config))
    return caught.value


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
keys = st.sampled_from(["option", "value", "fromArg", "skipDefault", "type", "x"])
entries = st.lists(st.dictionaries(keys, values), max_size=3) | values


@settings(deadline=None)
@given(st.fixed_dictionaries(
    {"type": st.just("dhcp"), "daemonSocketPath": st.just(NOWHERE)},
    optional={"request": entries, "provide": entries, "priority": values},
), st.text(max_size=20))  # fmt: skip
def test_any_configuration(ipam: dict[str, Any], args: str) -> None:
    """A CNI error that names what is wrong, or the daemon that is not there."""
    error = refused("STATUS", ipam, args)
    assert error.code in (7, 50)
    assert error.msg


@pytest.mark.parametrize("path", [NOWHERE, "/" + "x" * 300, "\0", "relative/x", "/etc/hostname"])
def test_any_socket_path(path: str) -> None:
    error = refused("STATUS", {"type": "dhcp", "daemonSocketPath": path})
    assert error.code == 50
    assert error.msg.startswith("error dialing DHCP daemon: ")


# The daemon's durations.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m2s", 62), ("3m28s", 208), ("500ms", 0.5), ("1.5h", 5400), (".5s", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    """[5.3.2] As Go writes them."""
    assert command.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "1s 2s", "-1s", "1m2", "\u0661s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        command.seconds(text)
