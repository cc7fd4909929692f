"""Networks as somebody names them: by their name, by a file, or on standard input."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from cni_py.spec.errors import CniError, Code
from cni_py.spec.limits import MOST_INPUT_BYTES

from . import completing
from .group import Unreadable

if TYPE_CHECKING:
    from cni_py.runtime import Network


net_dir_option = click.option(
    "--net-dir",
    envvar="NETCONFPATH",
    default=completing.NET_DIR,
    show_envvar=True,
    show_default=True,
    help="Where the networks' configurations are.",
)
networks_option = click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="NETWORK",
    help="Of this one alone.",
    shell_complete=completing.network_names,
)
cni_path_option = click.option(
    "--cni-path",
    envvar="CNI_PATH",
    default="/opt/cni/bin",
    show_envvar=True,
    show_default=True,
    help="Where the plugins' executables are: folders with : between them.",
)


def folders(cni_path: str) -> tuple[str, ...]:
    """The folders of CNI_PATH; a relative one is of the folder that the command runs in."""
    return tuple(os.path.abspath(one) for one in cni_path.split(":") if one)


def standard_input() -> bytes:
    """All that comes there. Raises Unreadable for a closed one, or too much."""
    if sys.stdin is None:
        raise Unreadable("standard input is closed")
    try:
        data = sys.stdin.buffer.read(MOST_INPUT_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"standard input cannot be read: {error.strerror}") from None
    if len(data) > MOST_INPUT_BYTES:
        raise Unreadable(f"standard input has more than {MOST_INPUT_BYTES} bytes")
    return data


def named(text: str, folder: str) -> Network:
    """The network that an argument names; a path has a slash, or ends as one of a file.

    Raises UnknownNetworkError for a name, Unreadable for a file.
    """
    from cni_py.runtime import load_file, load_network, parse_network
    from cni_py.runtime.folders import EXTENSIONS

    try:
        if text == "-":
            network = parse_network(standard_input())
            if not network.plugins:
                raise Unreadable(f"network {network.name} has no plugins")
            return network
        if "/" in text or text.endswith(EXTENSIONS):
            return load_file(text)
    except CniError as error:
        raise Unreadable(str(error)) from error
    if not os.path.isdir(folder):
        msg = f"there is no folder {folder} with networks' configurations"
        raise CniError(Code.INVALID_CONFIG, msg, "--net-dir or NETCONFPATH names another one")
    return load_network(text, folder)
