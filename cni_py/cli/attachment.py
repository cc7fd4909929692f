"""The attachment that a command is about: its options, and what the runtime gets of them."""

from __future__ import annotations

import os
import re
from functools import wraps
from hashlib import sha512
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cni_py.spec.config import decode_json

from .completing import container_ids, network_names
from .networks import cni_path_option, folders, named, net_dir_option
from .output import json_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni_py.runtime import Cached, Network, Parameters, Runtime

_ID_DIGITS = 20
# A day; no plugin takes longer.
_MOST_SECONDS = 86400
_SHOWN_CHARACTERS = 60
_NAMED_FOLDERS = ("/run/netns", "/var/run/netns")
_PORT = re.compile(
    r"(?:(?P<ip>[0-9.]+|\[[0-9a-fA-F:.]+\]):)?(?P<host>[0-9]{1,5}):(?P<container>[0-9]{1,5})"
    r"(?:/(?P<protocol>tcp|udp|sctp))?"
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of a command say."""

    network: str
    netns: str | None
    ifname: str
    container: str | None
    args: tuple[str, ...]
    caps: tuple[str, ...]
    ports: tuple[str, ...]
    net_dir: str
    cni_path: str
    timeout: float | None
    as_json: bool

    def runtime(self) -> Runtime:
        """The runtime that they describe."""
        from cni_py.runtime import Runtime

        return Runtime(folders(self.cni_path), self.net_dir, seconds=self.timeout)

    def found(self) -> Network:
        """The network. Raises UnknownNetworkError, Unreadable."""
        return named(self.network, self.net_dir)

    def parameters(self, network: Network | None = None) -> Parameters:
        """The attachment. With a network: capabilities given here must be of use for it.

        Raises UsageError.
        """
        from cni_py.runtime import Parameters

        if self.netns is None and self.container is None:
            raise click.UsageError("say which container: NETNS, or --container")
        if self.netns == "":
            raise click.UsageError("NETNS is empty")
        netns = "" if self.netns is None else absolute(self.netns)
        given = self._capabilities()
        if network is not None:
            for name in sorted(set(given) - network.capabilities):
                declared = ", ".join(sorted(network.capabilities)) or "none"
                msg = f"no plugin of {network.name} has the capability {name}"
                raise click.UsageError(f"{msg}; they have: {declared}")
        return Parameters(
            container_id(netns) if self.container is None else self.container,
            netns,
            self.ifname,
            self._args(),
            {**_environment_capabilities(), **given},
        )

    def recalled(self, cached: Cached | None) -> Parameters:
        """The same, and what is not given as the ADD had it."""
        from cni_py.runtime import Parameters

        own = self.parameters()
        if cached is None:
            return own
        known = cached.parameters
        return Parameters(
            own.container_id,
            own.netns or known.netns,
            own.ifname,
            own.args or known.args,
            own.capabilities or known.capabilities,
        )

    def _args(self) -> tuple[tuple[str, str], ...]:
        pairs = [*filter(None, os.environ.get("CNI_ARGS", "").split(";")), *self.args]
        split = [one.split("=") for one in pairs]
        for pair, parts in zip(pairs, split, strict=True):
            if len(parts) != len(("key", "value")) or not all(parts) or ";" in pair:
                raise click.UsageError(f'invalid CNI_ARGS pair "{pair}": write KEY=VALUE')
        return tuple((key, value) for key, value in split)

    def _capabilities(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        for one in self.caps:
            name, equals, text = one.partition("=")
            if not name or not equals:
                raise click.UsageError(f"--cap {one}: write NAME=JSON")
            try:
                wanted[name] = decode_json(os.fsencode(text))
            except ValueError as error:
                raise click.UsageError(f"--cap {name}: {_cut(text)} is no JSON: {error}") from None
        if self.ports:
            mappings = wanted.setdefault("portMappings", [])
            mappings += map(mapping, self.ports)
        return wanted


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _environment_capabilities() -> Mapping[str, Any]:
    text = os.environ.get("CAP_ARGS", "")
    try:
        value = decode_json(os.fsencode(text)) if text else {}
    except ValueError as error:
        raise click.UsageError(f"CAP_ARGS is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError('CAP_ARGS is no JSON object such as {"mac": "02:00:00:00:00:01"}')
    return value


def mapping(text: str) -> dict[str, Any]:
    """An entry of `portMappings` for `[IP:]HOST:CONTAINER[/PROTOCOL]`. Raises UsageError."""
    read = _PORT.fullmatch(text)
    if read is None:
        raise click.UsageError(f"--port {text}: write [IP:]HOST:CONTAINER[/tcp|udp|sctp]")
    entry: dict[str, Any] = {
        "hostPort": int(read["host"]),
        "containerPort": int(read["container"]),
        "protocol": read["protocol"] or "tcp",
    }
    if read["ip"]:
        entry["hostIP"] = read["ip"].strip("[]")
    return entry


def absolute(netns: str) -> str:
    """The namespace's path; a bare name that is no file here is one of `ip netns`.

    Raises UnicodeEncodeError where no result could name it.
    """
    netns.encode()
    if netns and "/" not in netns and not os.path.lexists(netns):
        return f"{_NAMED_FOLDERS[0]}/{netns}"
    return "/" + os.path.abspath(netns).lstrip("/")


def container_id(netns: str) -> str:
    """The id that cnitool gives the container of a namespace (T-06)."""
    return "cnitool-" + sha512(os.fsencode(netns)).hexdigest()[:_ID_DIGITS]


def name_of(netns: str) -> str:
    """The name by which `ip netns` knows the path; `""` for another path."""
    folder, name = os.path.split(netns)
    return name if folder in _NAMED_FOLDERS else ""


def attachment_options(*, netns_required: bool) -> Callable[[Callable[..., None]], Any]:
    """Give a command the arguments and options of an attachment, as one `Asked`."""
    options = (
        click.argument("network", shell_complete=network_names),
        click.argument("netns", required=netns_required),
        click.option(
            "-i",
            "--ifname",
            envvar="CNI_IFNAME",
            default="eth0",
            show_envvar=True,
            show_default=True,
            help="The interface's name in the container.",
        ),
        click.option(
            "--container",
            metavar="ID",
            help="The container's id, not one of its NETNS.",
            shell_complete=container_ids,
        ),
        click.option(
            "--args",
            multiple=True,
            metavar="KEY=VALUE",
            help="A pair for CNI_ARGS, behind those of the environment.",
        ),
        click.option(
            "--cap",
            "caps",
            multiple=True,
            metavar="NAME=JSON",
            help="A capability's value, beside those of CAP_ARGS.",
        ),
        click.option(
            "--port",
            "ports",
            multiple=True,
            metavar="[IP:]HOST:CONTAINER[/PROTOCOL]",
            help="Publish a port: an entry of the capability portMappings.",
        ),
        net_dir_option,
        cni_path_option,
        click.option("--timeout", type=click.FloatRange(0.001, _MOST_SECONDS), metavar="SECONDS"),
        json_option,
    )

    def decorate(function: Callable[..., None]) -> Any:
        @wraps(function)
        def command(**given: Any) -> None:
            own = {name: given.pop(name) for name in Asked.__struct_fields__}
            function(Asked(**own), **given)

        for option in reversed(options):
            command = option(command)
        return command

    return decorate
