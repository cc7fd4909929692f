"""What a runtime reads: networks' configurations, its cache, and what any plugin answers."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from functools import cache
from typing import TYPE_CHECKING

from cni_py.runtime import Network, Parameters, parse_network, parse_plugin
from cni_py.runtime.answers import result, supported
from cni_py.runtime.cache import Cache, previous_result
from cni_py.runtime.networks import parse_single
from cni_py.runtime.requests import attachment_config, collection_config, network_config
from cni_py.spec import versions
from cni_py.spec.attachment import Attachment
from cni_py.spec.config import decode_json
from cni_py.spec.conversion import embedded_version
from cni_py.spec.errors import CniError
from cni_py.spec.names import validate_network_name
from fuzz.target import CONFIGURATIONS, RESULT, configurations, require_reportable, split

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = True

_ATTACHMENT = Attachment("net1", "c1", "eth0")
_LIST = {
    "name": "n",
    "cniVersion": "0.4.0",
    "cniVersions": ["1.0.0", "1.1.0"],
    "disableCheck": "true",
    "disableGC": False,
    "loadOnlyInlinedPlugins": True,
    "plugins": [{"type": "a", "capabilities": {"mac": True}}],
}
_RECORD = {
    "kind": "cniCacheV1",
    "containerId": "c1",
    "config": base64.b64encode(json.dumps(_LIST).encode()).decode(),
    "ifName": "eth0",
    "networkName": "net1",
    "netns": "/run/netns/c1",
    "cniArgs": [["K", "V"]],
    "capabilityArgs": {"mac": "02:00:00:00:00:01"},
    "result": RESULT,
}


def seeds() -> Iterator[bytes]:
    yield f"network\n{json.dumps(_LIST)}".encode()
    for path in sorted(CONFIGURATIONS.glob("*.conflist")):
        yield b"network\n" + path.read_bytes()
    for one in configurations()[:4]:
        yield f"plugin\n{json.dumps(one)}".encode()
    yield f"cached\n{json.dumps(_RECORD)}".encode()
    yield f"cached\n{json.dumps(RESULT)}".encode()
    yield f"added\n{json.dumps(RESULT)}".encode()
    yield b"added\nnull"
    for answer in (
        {"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]},
        {"cniVersion": "0.2.0"},
    ):
        yield f"versions\n{json.dumps(answer)}".encode()


def run(data: bytes) -> None:
    words, document = split(data)
    reader = _READERS.get(words[0] if words else "", _network)
    try:
        reader(document)
    except CniError as error:
        require_reportable(error, data)


def _network(document: bytes) -> None:
    _usable(parse_network(document))


def _plugin(document: bytes) -> None:
    parse_plugin(document)
    _usable(parse_single(document))


def _usable(network: Network) -> None:
    """Its name is one of a file, and each plugin's input is JSON that names it."""
    validate_network_name(network.name)
    assert "/" not in network.name
    decode_json(network.source)
    for plugin in network.plugins:
        inputs = (
            attachment_config(network, plugin, {"mac": 1}, {"ips": []}),
            collection_config(network, plugin, [("c1", "eth0")]),
            network_config(network, plugin),
        )
        for one in inputs:
            config = decode_json(one)
            assert isinstance(config, dict)
            assert (config["type"], config["name"]) == (plugin.type, network.name)


def _cached(document: bytes) -> None:
    folder = _folder()
    kept = Cache(folder)
    path = kept.path(_ATTACHMENT)
    os.makedirs(kept.folder, 0o700, exist_ok=True)
    with open(path, "wb") as file:
        file.write(document)
    listing = kept.listing()
    # One or the other, and never somebody else's.
    assert len(listing.attachments) + len(listing.unreadable) == 1
    for one in listing.attachments:
        assert one.attachment == _ATTACHMENT
    found = kept.read(_ATTACHMENT)
    assert found is not None
    assert found.attachment == _ATTACHMENT
    if listing.attachments:
        _written_again(kept, found.parameters, found.document)
    for version in versions.ALL:
        try:
            previous_result(found, version)
        except CniError as error:
            require_reportable(error, document)
    found.configuration()


def _written_again(kept: Cache, parameters: Parameters, document: object) -> None:
    """What was read is written as the same."""
    network = Network(_ATTACHMENT.network, "1.1.0", ())
    assert document is None or isinstance(document, dict)
    kept.write(network, parameters, document or {})
    again = kept.read(_ATTACHMENT)
    assert again is not None
    assert (again.parameters, again.document) == (parameters, document or {})


@cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="cni-py-fuzz-")
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _added(document: bytes) -> None:
    for version in ("", *versions.ALL):
        written, _ = result(document, version)
        assert embedded_version(written)


def _versions(document: bytes) -> None:
    assert all(isinstance(one, str) for one in supported(document))


_READERS = {
    "network": _network,
    "plugin": _plugin,
    "cached": _cached,
    "added": _added,
    "versions": _versions,
}
