"""What a portmap configuration asks for, checked, as values (plugins.md 6.1.1)."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import iptables
from cni_py.kernel.nftables import nftables, nftables_if_installed
from cni_py.spec.addresses import parse_ip
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals

from . import chained, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni_py.spec.addresses import IP, Cidr
    from cni_py.spec.call import Call
    from cni_py.spec.results import Result

NFTABLES, IPTABLES = "nftables", "iptables"
PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65535
_MARK_BITS = 32
_DEFAULT_MARK_BIT = 13
_CHAIN_BYTES = 28
_NFT_CHARACTERS = frozenset(
    'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .:/_-,!=<>{}"*@&|^()+'
)
_IPTABLES_TARGETS = frozenset({"-j", "--jump", "-g", "--goto"})
SET_MARK_CHAIN = "CNI-HOSTPORT-SETMARK"


class PortMapping(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of the capability `portMappings`."""

    host_port: int
    """The host's port, 1 to 65535."""
    container_port: int
    """The container's port, 1 to 65535."""
    protocol: str = "tcp"
    """`tcp`, `udp` or `sctp`, in any case."""
    host_ip: str = msgspec.field(default="", name="hostIP")
    """One address of the host; none, `0.0.0.0` and `::` are all of them."""


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the capability brings."""

    port_mappings: tuple[PortMapping, ...] = ()
    """The capability `portMappings`: the ports to publish."""


class Config(PluginConfig, frozen=True, kw_only=True):
    """portmap's configuration."""

    backend: str = ""
    """`nftables` or `iptables`; none: nftables where it is there."""
    snat: bool = True
    """The container and its neighbours on a bridge reach it through the host's port, and the host
    from 127.0.0.1.
    """
    masq_all: bool = False
    """The container sees every client as the host."""
    mark_masq_bit: int | None = None
    """iptables: the bit of the mark that says "masquerade", 0 to 31; none: 13."""
    external_set_mark_chain: str = ""
    """iptables: the chain that marks instead; somebody else masquerades."""
    conditions_v4: tuple[str, ...] = ()
    """Further conditions on IPv4, in the words of `iptables` or `nft`, for this container's ports
    alone.
    """
    conditions_v6: tuple[str, ...] = ()
    """Further conditions on IPv6, in the words of `iptables` or `nft`, for this container's ports
    alone.
    """
    runtime_config: RuntimeConfig = RuntimeConfig()
    """What the capabilities bring."""


class LaxRuntimeConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The same, whatever is in it."""

    port_mappings: Any = None


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know: whether there were mappings at all."""

    runtime_config: LaxRuntimeConfig = LaxRuntimeConfig()


class Mapped(msgspec.Struct, frozen=True):
    """A host's port of one IP version, and where it leads; `host_ip` is `""` for every address."""

    version: int
    protocol: str
    host_ip: str
    host_port: int
    address: str
    container_port: int

    def __str__(self) -> str:
        """As a reader knows it: `192.0.2.1:8080/tcp`."""
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        return f"{host}:{self.host_port}/{self.protocol}"


class Record(records.Record, frozen=True, kw_only=True):
    """What an ADD has set: enough to take it away, and to set it anew.

    `addresses` are the container's with their prefixes, one of each version.
    `sources` are the subnets whose packets are masqueraded. `parsed` has nftables' own form of the
    conditions, by version.
    """

    backend: str
    mappings: tuple[Mapped, ...]
    addresses: tuple[str, ...]
    sources: tuple[str, ...] = ()
    snat: bool = True
    masq_all: bool = False
    mark_chain: str = ""
    mark_bit: int = _DEFAULT_MARK_BIT
    conditions: dict[int, tuple[str, ...]] = msgspec.field(default_factory=dict)
    parsed: dict[int, list[dict[str, Any]]] = msgspec.field(default_factory=dict)
    interface: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError: a record that contradicts itself is damaged."""
        have = {ip_interface(one).version for one in self.addresses}
        if not have.issuperset(self.versions):
            raise ValueError("a mapping has no address to lead to")

    @property
    def versions(self) -> list[int]:
        """The IP versions that are mapped."""
        return sorted({one.version for one in self.mappings})

    def address(self, version: int) -> Cidr:
        """The container's address of that version."""
        found = (ip_interface(one) for one in self.addresses)
        return next(one for one in found if one.version == version)

    def of(self, version: int) -> list[Mapped]:
        """The mappings of that version, in the configuration's order."""
        return [one for one in self.mappings if one.version == version]


def mapped(config: Config, result: Result, ifname: str) -> tuple[list[Mapped], list[Cidr]]:
    """The mappings by IP version, and the container's addresses that they lead to.

    Only the first address of a version can be reached through a port (W-PM10). Raises CniError 7.
    """
    entries = [_checked(one) for one in config.runtime_config.port_mappings]
    own: dict[int, Cidr] = {}
    for one in chained.container_ips(result, ifname):
        own.setdefault(one.address.version, one.address)
    if not own:
        msg = f"portMappings need an address of {ifname}, and prevResult has none"
        raise CniError(Code.INVALID_CONFIG, msg, "portmap comes after a plugin with IPAM")
    found: dict[tuple[object, ...], Mapped] = {}
    for given, (protocol, host_ip) in zip(
        config.runtime_config.port_mappings, entries, strict=True
    ):
        host = "" if host_ip is None or host_ip.is_unspecified else str(host_ip)
        for version in _versions(host_ip, own, ifname):
            to = (str(own[version].ip), given.container_port)
            mapping = Mapped(version, protocol, host, given.host_port, *to)
            key = (version, protocol, host, given.host_port)
            if key in found:
                msg = f"host port {mapping} is mapped twice"
                raise CniError(Code.INVALID_CONFIG, msg, "one host port leads to one place")
            found[key] = mapping
    return list(found.values()), [own[one] for one in sorted(own)]


def _versions(host_ip: IP | None, own: Mapping[int, Cidr], ifname: str) -> list[int]:
    """The IP versions that a mapping is for. Raises CniError 7 where the container has no address.

    `0.0.0.0` and `::` are all addresses of their version, be there some or none.
    """
    if host_ip is None:
        return sorted(own)
    if host_ip.version in own:
        return [host_ip.version]
    if host_ip.is_unspecified:
        return []
    msg = f'hostIP "{host_ip}" is of IPv{host_ip.version}, and {ifname} has no such address'
    listed = ", ".join(str(one.ip) for one in own.values())
    raise CniError(Code.INVALID_CONFIG, msg, f"{ifname} has {listed}")


def _checked(one: PortMapping) -> tuple[str, IP | None]:
    for name, number in (("container", one.container_port), ("host", one.host_port)):
        if not 1 <= number <= _MAX_PORT:
            msg = f"Invalid {name} port number: {number}"
            raise CniError(Code.INVALID_CONFIG, msg, f"a port is 1 to {_MAX_PORT}")
    protocol = one.protocol.lower()
    if protocol not in PROTOCOLS:
        msg = f'unknown protocol "{one.protocol}" of host port {one.host_port}'
        raise CniError(Code.INVALID_CONFIG, msg, f"one of {', '.join(PROTOCOLS)}")
    if not one.host_ip:
        return protocol, None
    try:
        address = parse_ip(one.host_ip)
    except ValueError:
        msg = f'hostIP "{one.host_ip}" of host port {one.host_port} is not an IP address'
        raise CniError(Code.INVALID_CONFIG, msg) from None
    if address.is_multicast:
        msg = f'hostIP "{one.host_ip}" of host port {one.host_port} is of a multicast group'
        raise CniError(Code.INVALID_CONFIG, msg, "an address of this host, or none for all")
    return protocol, address


def flavour_of(config: Config) -> str:
    """The backend that the configuration names or that its keys are of, else `""`.

    Raises CniError 7.
    """
    if config.backend not in ("", NFTABLES, IPTABLES):
        msg = f'unrecognized backend "{config.backend}"'
        raise CniError(Code.INVALID_CONFIG, msg, f'backend is "{NFTABLES}" or "{IPTABLES}"')
    keys: dict[str, list[str]] = {}
    if config.external_set_mark_chain:
        keys.setdefault(IPTABLES, []).append("externalSetMarkChain")
    for name, tokens in _conditions(config).items():
        if tokens:
            flavour = IPTABLES if tokens[0][:1] in ("-", "!") else NFTABLES
            keys.setdefault(flavour, []).append(name)
    if len(keys) > 1:
        listed = " and ".join(f"{name} ({', '.join(own)})" for name, own in keys.items())
        msg = f"configuration contains options of both {listed}"
        raise CniError(Code.INVALID_CONFIG, msg, "conditions are of one backend's syntax")
    for flavour, own in keys.items():
        if config.backend not in ("", flavour):
            msg = f"{config.backend} backend was requested but configuration contains "
            msg += f"{flavour}-specific options [{' '.join(own)}]"
            raise CniError(Code.INVALID_CONFIG, msg)
        return flavour
    return config.backend


def backend_of(config: Config) -> str:
    """The same, or nftables where its library is, else iptables where that is."""
    flavour = flavour_of(config)
    if flavour:
        return flavour
    return IPTABLES if nftables_if_installed() is None and iptables.available(4) else NFTABLES


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host, in the keys that are of no mapping."""
    config = call.config
    bit, chain = config.mark_masq_bit, config.external_set_mark_chain
    yield from refusals("backend", flavour_of, config)
    if bit is not None and chain:
        msg = "Cannot specify externalSetMarkChain and markMasqBit"
        details = "the external chain decides about the mark"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="markMasqBit")
    if bit is not None and not 0 <= bit < _MARK_BITS:
        msg, details = (
            f"MasqMarkBit must be between 0 and {_MARK_BITS - 1}",
            f"markMasqBit is {bit}",
        )
        yield CniError(Code.INVALID_CONFIG, msg, details, key="markMasqBit")
    if chain and not _is_chain(chain):
        msg = f'externalSetMarkChain "{chain}" is not the name of a chain'
        details = f"1 to {_CHAIN_BYTES} letters, no blank or quote"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="externalSetMarkChain")
    # Whose syntax it is nobody knows where the backend itself is wrong.
    backend = _flavour_if_known(config)
    for name, tokens in _conditions(config).items():
        yield from refusals(name, _require_tokens, name, tokens, backend)


def _flavour_if_known(config: Config) -> str:
    try:
        return flavour_of(config)
    except CniError:
        return ""


def _is_chain(name: str) -> bool:
    printable = name.isascii() and name.isprintable() and not set(name) & set(" \"'\\!;#")
    return printable and len(name) <= _CHAIN_BYTES and name[0] != "-"


def _require_tokens(name: str, tokens: Sequence[str], backend: str) -> None:
    for token in tokens:
        good = token.isprintable() and not set(token) & set(";#{}\\")
        if backend == NFTABLES:
            good = _NFT_CHARACTERS.issuperset(token)
        if not token or not good:
            msg = f"{name} has {token!r}, which is not part of one rule"
            raise CniError(Code.INVALID_CONFIG, msg, "no line breaks, semicolons or comments")
        if backend == IPTABLES and token in _IPTABLES_TARGETS:
            msg = f"{name} has {token!r}: a condition says which packets, not what becomes of them"
            raise CniError(Code.INVALID_CONFIG, msg, "leave the target out: portmap adds its own")
    text = " ".join(tokens)
    if backend == NFTABLES and not _is_balanced(text):
        msg = f"{name} has braces or quotes that are not closed"
        raise CniError(Code.INVALID_CONFIG, msg, text)


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0 and text.count('"') % 2 == 0


def require_backend(backend: str, versions: Sequence[int]) -> None:
    """Raises CniError 999 when the backend cannot be used on this host."""
    if backend == NFTABLES:
        nftables()
        return
    for version in versions:
        if not iptables.available(version):
            msg = f"{'iptables' if version == 4 else 'ip6tables'} is not installed"
            raise CniError(Code.INTERNAL, msg, 'install it, or set backend to "nftables"')


def conditions_of(config: Config) -> dict[int, tuple[str, ...]]:
    """The conditions by IP version, where there are any."""
    both = {4: config.conditions_v4, 6: config.conditions_v6}
    return {version: tokens for version, tokens in both.items() if tokens}


def _conditions(config: Config) -> dict[str, tuple[str, ...]]:
    return {"conditionsV4": config.conditions_v4, "conditionsV6": config.conditions_v6}


def mark_of(config: Config) -> tuple[str, int]:
    """The chain that marks what is to be masqueraded, and the mark's bit."""
    bit = _DEFAULT_MARK_BIT if config.mark_masq_bit is None else config.mark_masq_bit
    return config.external_set_mark_chain or SET_MARK_CHAIN, bit


RECORDS = records.Records("/run/cni-py/portmap", Record)
