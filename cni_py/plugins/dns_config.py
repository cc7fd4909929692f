"""dns's configuration, and what a container is called by it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from cni_py.spec.addresses import parse_ip
from cni_py.spec.args import load_args
from cni_py.spec.config import PluginConfig
from cni_py.spec.dns_names import dns_name
from cni_py.spec.errors import CniError, Code, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call

DEFAULT_DOMAIN = "cni.internal"
_POD = ("K8S_POD_NAMESPACE", "K8S_POD_NAME")
_MOST_TTL_SECONDS = 24 * 3600
_MOST_NAMES = 256
_MOST_PORT = 65535
# What runtimes make of a container that nobody named: the first digits tell it from others.
_HASH = re.compile(r"[0-9a-f]{64}")
_SHORT_DIGITS = 12
_LABEL_RULE = (
    "a name has labels of 1 to 63 letters, digits, `_` and `-` (not at an end), with dots between"
)


class _RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the capability `aliases` brings."""

    aliases: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    """The capability `aliases`: further names of the container on this network; or, as podman has
    it, those of each network by the network's name.
    """


class _CniArgs(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    """The container's name."""
    aliases: tuple[str, ...] = ()
    """Further names of the container."""


class _Args(msgspec.Struct, frozen=True, kw_only=True):
    cni: _CniArgs = _CniArgs()
    """Arguments for CNI plugins."""


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know: nothing but the network's name."""


class Config(PluginConfig, frozen=True, kw_only=True):
    """dns's configuration."""

    domain_name: str = DEFAULT_DOMAIN
    """The domain of the containers' names, which are found with it and without. Empty: the default.
    """
    internal: bool = False
    """Whether only the network's own names are answered; other names then do not exist."""
    upstream: tuple[str, ...] = ()
    """The servers that other names are asked of: addresses, with `#` and a port where it is not 53.
    None: the host's resolvers, by its `/etc/resolv.conf` as it is at any time.
    """
    ttl: int = 0
    """For how many seconds the containers may keep an answer for a name of the network."""
    runtime_config: _RuntimeConfig = _RuntimeConfig()
    """What the capabilities bring."""
    args: _Args = _Args()
    """What the runtime passes in `args.cni`."""

    @property
    def domain(self) -> str:
        """The domain. Raises ValueError for what is no name."""
        return dns_name(self.domain_name or DEFAULT_DOMAIN)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    yield from refusals("domainName", _named, config.domain_name or DEFAULT_DOMAIN, "domainName")
    if config.internal and config.upstream:
        msg = "upstream is of no use with internal"
        details = "an internal network asks nobody for other names"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="upstream")
    for index, one in enumerate(config.upstream):
        yield from refusals(f"upstream[{index}]", _require_server, one)
    if not 0 <= config.ttl <= _MOST_TTL_SECONDS:
        msg, details = f"ttl is {config.ttl}", f"it is 0 to {_MOST_TTL_SECONDS} seconds"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="ttl")
    yield from refusals("", names_of, call)


def names_of(call: Call[Config]) -> list[str]:
    """What the container is called, the most important name first; empty where it has none.

    By `args.cni.name`, the pod, and the aliases; by its id where none of them is given. Raises
    CniError 7, and 4 for what CNI_ARGS says.
    """
    config = call.config
    own = config.args.cni
    given = [_named(own.name, "args.cni.name")] if own.name else []
    given += _pod_names(load_args(call.args, _POD) if call.args else {})
    aliases = config.runtime_config.aliases
    if isinstance(aliases, dict):
        aliases = aliases.get(call.request.network, ())
    given += [_named(one, "runtimeConfig.aliases") for one in aliases]
    given += [_named(one, "args.cni.aliases") for one in own.aliases]
    if len(given) > _MOST_NAMES:
        msg = f"the container has {len(given)} names"
        raise CniError(Code.INVALID_CONFIG, msg, f"at most {_MOST_NAMES}")
    return list(dict.fromkeys(given)) or _by_id(call.container_id)


def upstream_of(config: Config) -> tuple[str, ...] | None:
    """Whom other names are asked of: None for the host's resolvers, empty for nobody."""
    if config.internal:
        return ()
    return tuple(map(_server, config.upstream)) or None


def _pod_names(pod: dict[str, str]) -> list[str]:
    namespace, name = (pod.get(one, "") for one in _POD)
    if not name:
        return []
    names = [_named(name, "K8S_POD_NAME", Code.INVALID_ENVIRONMENT)]
    if namespace:
        both = _named(f"{name}.{namespace}", "K8S_POD_NAMESPACE", Code.INVALID_ENVIRONMENT)
        names.append(both)
    return names


def _by_id(container_id: str) -> list[str]:
    short = container_id[:_SHORT_DIGITS] if _HASH.fullmatch(container_id) else container_id
    try:
        return [dns_name(short)]
    except ValueError:
        # A runtime's own form of ids; nobody has asked for it as a name.
        return []


def _named(text: str, key: str, code: Code = Code.INVALID_CONFIG) -> str:
    try:
        return dns_name(text)
    except ValueError as error:
        raise CniError(code, f"{key}: {error}", _LABEL_RULE, key=key) from None


def _require_server(text: str) -> None:
    try:
        _server(text)
    except ValueError:
        msg = f"upstream: {text[:80]!a} is no server"
        details = "an address such as 9.9.9.9, 10.0.0.2#5353 or fd00::53"
        raise CniError(Code.INVALID_CONFIG, msg, details) from None


def _server(text: str) -> str:
    """The server as dnsmasq has it. Raises ValueError."""
    address, sign, port = text.partition("#")
    found = str(parse_ip(address))
    if not sign:
        return found
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _MOST_PORT):
        raise ValueError(f"invalid port: {port}")
    return f"{found}#{int(port)}"
