"""tuning's configuration, and what it asks for in the end (6.4)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.spec.args import load_args
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals, require_none

from . import mtu as mtus
from . import tuning_sysctl
from .hardware_address import Mac, parse_mac
from .mtu import Mtu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call

    from .tuning_sysctl import Sysctl

_DATA_DIR = "/run/cni/tuning"
_MIN_MTU, _MAX_MTU = 68, 65535
_MAX_QUEUE_LENGTH = 2**32 - 1
_IFNAME = "IFNAME"


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """`args.cni`: what is set there wins."""

    sysctl: dict[str, str] = msgspec.field(default_factory=dict)
    """Adds to the plugin's `sysctl`, or replaces."""
    mac: str = ""
    """The interface's hardware address."""
    promisc: bool | None = None
    """The interface receives everything."""
    mtu: int | None = None
    """68 to 65535; from 1280 on where there are IPv6 addresses."""
    allmulti: bool | None = None
    """The interface receives all multicast."""
    tx_queue_length: int | None = msgspec.field(default=None, name="txQLen")
    """The length of its transmit queue."""


class _Args(msgspec.Struct, frozen=True, kw_only=True):
    cni: _Asked = _Asked()
    """What is set here wins over the same keys of the plugin."""


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know."""

    data_dir: str = ""
    """Where the former values are kept: an absolute path; none: `/run/cni/tuning`."""

    @property
    def folder(self) -> str:
        """Where the former values are kept. Raises CniError 7."""
        if "\0" in self.data_dir:
            raise CniError(Code.INVALID_CONFIG, "dataDir contains NUL", "it is a folder's path")
        if self.data_dir and not os.path.isabs(self.data_dir):
            # Of whom would it be? The server has a working directory of its own.
            msg = f'dataDir "{self.data_dir}" is not an absolute path'
            raise CniError(Code.INVALID_CONFIG, msg)
        return os.path.normpath(self.data_dir or _DATA_DIR)


class Config(DelConfig, frozen=True, kw_only=True):
    """tuning's configuration: an attribute that is not given is left as it is."""

    sysctl: dict[str, str] = msgspec.field(default_factory=dict)
    """Kernel parameters below `net`, in the container's namespace; `IFNAME` stands for the
    interface.
    """
    mac: str = ""
    """The interface's hardware address; none: as it is."""
    promisc: bool = False
    """The interface receives everything."""
    mtu: Mtu = 0
    """68 to 65535, or `auto`; from 1280 on where there are IPv6 addresses. 0: as it is."""
    allmulti: bool | None = None
    """The interface receives all multicast; none: as it is."""
    tx_queue_length: int | None = msgspec.field(default=None, name="txQLen")
    """The length of its transmit queue; none: as it is."""
    args: _Args = _Args()
    """What the runtime passes in `args.cni`."""
    runtime_config: Mac = Mac()
    """What the capabilities bring."""


class Wanted(NamedTuple):
    """What is to be set: sysctls in the configuration's order, and attributes of the interface.

    `""`, 0 and None leave an attribute as it is, as does `promisc` False.
    """

    sysctls: tuple[Sysctl, ...]
    mac: str
    promisc: bool
    mtu: int
    allmulti: bool | None
    queue_length: int | None

    @property
    def changes_link(self) -> bool:
        """Whether an attribute of the interface is asked for."""
        options = (self.allmulti, self.queue_length)
        return bool(self.mac or self.promisc or self.mtu) or options != (None, None)


def wanted(call: Call[Config]) -> Wanted:
    """What the configuration, CNI_ARGS and `args` ask for together. Raises CniError 7 or 4."""
    config, asked = call.config, call.config.args.cni
    require_none(mistakes(call))
    mtu = asked.mtu if asked.mtu is not None else mtus.of(call)
    mtus.require(mtu, _MIN_MTU, _MAX_MTU)
    return Wanted(
        sysctls=_sysctls(call),
        mac=_mac(call),
        promisc=config.promisc if asked.promisc is None else asked.promisc,
        mtu=mtu,
        allmulti=config.allmulti if asked.allmulti is None else asked.allmulti,
        queue_length=_queue_length(config),
    )


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host; which keys stand twice in the text is another question."""
    config, asked = call.config, call.config.args.cni
    yield from refusals("dataDir", _require_own_folder, config)
    mtu = asked.mtu if asked.mtu is not None else mtus.fixed(config.mtu)
    key = "mtu" if asked.mtu is None else "args.cni.mtu"
    yield from refusals(key, mtus.require, mtu, _MIN_MTU, _MAX_MTU)
    length = _queue_length(config)
    if length is not None and not 0 <= length <= _MAX_QUEUE_LENGTH:
        msg = f"invalid txQLen {length}"
        details = f"txQLen is 0 to {_MAX_QUEUE_LENGTH}"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="txQLen")
    yield from refusals("sysctl", _parsed, call)
    yield from refusals("mac", _mac, call)


def _require_own_folder(config: Config) -> None:
    if config.folder == "/":
        raise CniError(Code.INVALID_CONFIG, "dataDir is /", "the folder is tuning's own")


def _queue_length(config: Config) -> int | None:
    asked = config.args.cni.tx_queue_length
    return config.tx_queue_length if asked is None else asked


def _sysctls(call: Call[Config]) -> tuple[Sysctl, ...]:
    config, asked = call.config, call.config.args.cni
    if not config.sysctl and not asked.sysctl:
        return ()
    tuning_sysctl.require_distinct(call.request.stdin)
    parsed = _parsed(call)
    if call.verb in ("ADD", "STATUS"):
        tuning_sysctl.require_allowed(parsed.values(), call.ifname or _IFNAME)
    return tuple(parsed.values())


def _parsed(call: Call[Config]) -> dict[str, Sysctl]:
    # STATUS is of no interface.
    ifname = call.ifname or _IFNAME
    parsed = tuning_sysctl.parse(call.config.sysctl, ifname)
    return parsed | tuning_sysctl.parse(call.config.args.cni.sysctl, ifname)


def _mac(call: Call[Config]) -> str:
    """The hardware address: `args.cni.mac` wins here, unlike in the interface plugins."""
    config = call.config
    sources = (
        ("args.cni.mac", config.args.cni.mac),
        ("runtimeConfig.mac", config.runtime_config.mac),
        ("CNI_ARGS MAC", load_args(call.args, ("MAC",)).get("MAC", "")),
        ("the key mac", config.mac),
    )
    return next((parse_mac(text, source) for source, text in sources if text), "")
