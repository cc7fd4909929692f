"""What a host does look like, in the form of `Model.picture`."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni_py.spec import attachment as names

from .model import Attachment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fixtures.host import Host

RECORDS, NETWORKS = "/run/cni-py", "/var/lib/cni/networks"

_SCRIPT = """
printf 'addr\\nroute\\n' | ip -d -j -batch -; echo @; nft -j list ruleset; echo @
grep -l 1 /proc/sys/net/ipv4/conf/*/route_localnet; echo @
for one in /run/netns/*; do
  [ -e "$one" ] || continue
  echo "${one##*/}"; ip -n "${one##*/}" -d -j addr
done
"""
_COUNTERS = ("lock", "state")


class Names:
    """What derived names and keys stand for, of every attachment that there can be."""

    def __init__(self, networks: Iterable[str], ids: Iterable[str], ifnames: Iterable[str]) -> None:
        self._by_key: dict[str, Attachment] = {}
        self._pairs: dict[str, str] = {}
        for one in map(Attachment._make, product(networks, ids, ifnames)):
            derived = names.Attachment(*one)
            self._by_key[derived.key] = one
            self._pairs[derived.host_ifname] = one.pair

    def owner(self, label: str) -> Any:
        """Whom a label or a file's name speaks of; the text itself if nobody is known by it."""
        return self._by_key.get(label.partition(",")[0].removesuffix(".json"), label)

    def pair(self, link: str) -> str:
        """The name of a link of the host as the model has it."""
        return self._pairs.get(link, link)


def seen(host: Host, names: Names, own_links: Iterable[str]) -> dict[str, Any]:
    """The host's picture; `own_links` are those that the test itself has made there."""
    shown, rules, opened, inside = host.run("sh", "-c", _SCRIPT).stdout.split("@\n")
    addresses, _, routes = shown.strip().partition("\n")
    picture: dict[str, Any] = {"unexplained": []}
    _see_links(picture, names, json.loads(addresses), {"lo", *own_links})
    picture["routes"] = {
        one["dst"]: names.pair(one["dev"])
        for one in json.loads(routes or "[]")
        if one.get("protocol") != "kernel"
    }
    _see_containers(picture, inside.splitlines())
    _see_rules(picture, names, json.loads(rules)["nftables"])
    picture["opened"] = {names.pair(one.split("/")[-2]) for one in opened.split()}
    root = Path(f"/proc/{host.holder.pid}/root")
    _see_allocations(picture, root.joinpath(NETWORKS[1:]))
    _see_records(picture, names, root.joinpath(RECORDS[1:]))
    return picture


def _see_links(
    picture: dict[str, Any], names: Names, links: list[dict[str, Any]], own: set[str]
) -> None:
    picture |= {"pairs": {}, "bridges": {}}
    for one in links:
        name, kind = one["ifname"], one.get("linkinfo", {}).get("info_kind")
        label = names.owner(one.get("ifalias", ""))
        if kind == "bridge":
            picture["bridges"][name] = _addresses(one, with_prefix=True)
        elif kind == "veth" and isinstance(label, Attachment) and one["group"] == "default":
            assert names.pair(name) == label.pair, one
            picture["pairs"][label.pair] = one.get("master", "")
        elif name not in own:
            picture["unexplained"].append(name)


def _see_containers(picture: dict[str, Any], lines: list[str]) -> None:
    picture |= {"links": {}, "loopbacks": set()}
    for name, listed in zip(lines[::2], lines[1::2], strict=True):
        for one in json.loads(listed):
            if one["ifname"] != "lo":
                kind = one["linkinfo"]["info_kind"]
                picture["links"][name, one["ifname"]] = (kind, sorted(_addresses(one)))
            elif "UP" in one["flags"]:
                picture["loopbacks"].add(name)


def _addresses(link: dict[str, Any], *, with_prefix: bool = False) -> set[str]:
    return {
        one["local"] + (f"/{one['prefixlen']}" if with_prefix else "")
        for one in link["addr_info"]
        if one["scope"] != "link"
    }


def _see_rules(picture: dict[str, Any], names: Names, listed: list[dict[str, Any]]) -> None:
    picture |= {"masquerades": {}, "port rules": {}, "answer rules": {}, "guarded": set()}
    for name, element in _elements(listed):
        if name == "portlocalnet":
            # With a comment where there is something to be put back.
            link = element["elem"]["val"] if isinstance(element, dict) else element
            picture["guarded"].add(names.pair(link))
            continue
        key, value = element
        owner, key = names.owner(key["elem"]["comment"]), key["elem"]["val"]
        if name.startswith("masq"):
            picture["masquerades"][key] = owner
        elif name == "portsnat4":
            picture["answer rules"][key] = owner
        elif name == "port4" and key["concat"][0] == "tcp" and value["concat"][1] == 80:
            picture["port rules"][key["concat"][1]] = (owner, value["concat"][0])
        else:
            picture["unexplained"].append((name, element))


def _elements(listed: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for item in listed:
        for kind in ("set", "map"):
            for element in item.get(kind, {}).get("elem", ()):
                yield item[kind]["name"], element


def _see_allocations(picture: dict[str, Any], folder: Path) -> None:
    picture |= {"allocated": {}, "last": {}}
    for file in folder.glob("[!.]*/*"):
        network, name = file.parent.name, file.name
        if name.startswith("last_reserved_ip."):
            picture["last"][network, int(name.rpartition(".")[2])] = file.read_text()
        elif name not in _COUNTERS:
            owner = tuple(file.read_bytes().decode().split("\r\n"))
            picture["allocated"][network, name] = owner


def _see_records(picture: dict[str, Any], names: Names, folder: Path) -> None:
    picture |= {"masquerade records": set(), "portmap records": set()}
    picture |= {"claims": {}, "localhost": set(), "delegated": set()}
    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        if file.is_dir() and not file.is_symlink():
            continue
        match parts:
            case ("masquerade" | "portmap" as module, name):
                picture[f"{module} records"].add(names.owner(name))
            case ("overlay", name):
                picture["delegated"].add(names.owner(name))
            case ("cluster", "networks", _):
                # Which subnets the network had last: it stays.
                pass
            case ("portmap", "ports", port, "any"):
                picture["claims"][int(port.removeprefix("4-tcp-"))] = names.owner(
                    str(file.readlink())
                )
            case ("portmap", "localnet", interface, "set"):
                pass
            case ("portmap", "localnet", interface, key):
                picture["localhost"].add((names.owner(key), names.pair(interface)))
            case _:
                picture["unexplained"].append(str(file.relative_to(folder)))
