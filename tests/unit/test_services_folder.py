"""What the keeper reads of declarations: nothing twice, nothing missed, nothing changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from cni_py.kernel import sysctl
from cni_py.services import local as locals_
from cni_py.services.declaration import Check, Declaration, Service
from cni_py.services.folder import DeclarationFolder
from cni_py.services.local import Local, entries
from cni_py.spec.attachment import Attachment

if TYPE_CHECKING:
    from pathlib import Path

WEB = Service(name="web", port=80, check=Check())


def declaration(container: str, *services: Service, **more) -> Declaration:
    attachment = Attachment("net1", container, "eth0")
    addresses = more.get("addresses", ("10.1.0.2", "fd00::2"))
    return Declaration(attachment=attachment, addresses=addresses, services=services or (WEB,))


def write(folder: Path, one: Declaration, boot: str = "") -> str:
    """As the plugin does it."""
    path = f"{folder}/{one.attachment.key}.json"
    text = msgspec.json.encode({"boot": boot or sysctl.boot_id(), "declaration": one})
    with open(f"{path}.new", "wb") as file:
        file.write(text)
    os.rename(f"{path}.new", path)
    return path


def settled(folder: Path) -> None:
    """It was changed long ago."""
    os.utime(folder, ns=(0, os.stat(folder).st_mtime_ns - 10**9))


def test_changes_are_seen(tmp_path: Path) -> None:
    folder = DeclarationFolder(str(tmp_path / "services"))
    assert folder.has_changed()
    assert folder.read() == ((), {})
    (tmp_path / "services").mkdir()
    assert folder.has_changed()
    first = declaration("c1")
    path = write(tmp_path / "services", first)
    settled(tmp_path / "services")
    assert folder.read().declarations == (first,)
    assert not folder.has_changed()
    other = declaration("c1", Service(name="api", port=81))
    write(tmp_path / "services", other)
    assert folder.has_changed()
    assert folder.read().declarations == (other,)
    # So young a change may hide another one: it is looked at again.
    assert folder.has_changed()
    os.unlink(path)
    assert folder.read() == ((), {})


def test_what_is_not_of_now(tmp_path: Path) -> None:
    """Of another boot, in another's place, set aside, or half written."""
    folder = DeclarationFolder(str(tmp_path))
    write(tmp_path, declaration("c1"), boot="another")
    path = write(tmp_path, declaration("c2"))
    os.rename(path, f"{tmp_path}/{'0' * 16}-{'0' * 16}.json")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "half.json.new").write_text("{")
    found = folder.read()
    assert found.declarations == ()
    assert list(found.problems.values()) == ["it is another attachment's"]


@pytest.mark.parametrize(
    "addresses", [(), ("x",), ("10.1.0.2", "10.1.0.2"), ("fe80::1%eth0",), ("10.1.0.2\n",) * 1]
)
def test_addresses_that_are_none(tmp_path: Path, addresses: tuple[str, ...]) -> None:
    folder = DeclarationFolder(str(tmp_path))
    write(tmp_path, declaration("c1", addresses=addresses))
    found = folder.read()
    assert found.declarations == ()
    assert len(found.problems) == 1


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand containers the one that is new is read."""
    folder = DeclarationFolder(str(tmp_path))
    for number in range(20):
        write(tmp_path, declaration(f"c{number}"))
    assert len(folder.read().declarations) == 20
    opened = []
    real = os.open

    def counting(path, *words, **more):
        opened.append(path)
        return real(path, *words, **more)

    monkeypatch.setattr(os, "open", counting)
    new = write(tmp_path, declaration("new"))
    opened.clear()
    assert len(folder.read().declarations) == 21
    assert [one for one in opened if str(one).endswith(".json")] == [new]


def test_addresses_answer_apart() -> None:
    """An instance has those of its addresses that answer; names lead to no others."""
    local = Local("n1", [declaration("c1"), declaration("c2", addresses=("10.1.0.3",))])
    keys = sorted(local.targets())
    assert len(local) == 2
    assert len(keys) == 3
    assert local.healthy(()) == {}
    by_address = {locals_.named(key)[1]: key for key in keys}
    found = local.healthy({by_address["fd00::2"], by_address["10.1.0.3"]})
    assert sorted(one.addresses for one in found.values()) == [("10.1.0.3",), ("fd00::2",)]
    assert entries(found.values()) == {"net1": [("10.1.0.3", ["web"]), ("fd00::2", ["web"])]}
    assert len(local.healthy(keys)) == 2


def test_services_of_one_container() -> None:
    """One address with several names; what is not checked is a target all the same."""
    both = declaration("c1", WEB, Service(name="api", port=81), addresses=("10.1.0.2",))
    local = Local("n1", [both])
    found = local.healthy(local.targets().keys())
    assert entries(found.values()) == {"net1": [("10.1.0.2", ["api", "web"])]}
    assert {one.check for one in local.targets().values()} == {Check(), None}


def test_what_no_dns_has() -> None:
    """Another node's record of such a name takes no other name out."""
    local = Local("n1", [declaration("c1", addresses=("10.1.0.2",))])
    (one,) = local.healthy(local.targets().keys()).values()
    odd = msgspec.structs.replace(one, service="localhost", addresses=("10.1.0.3",))
    assert entries([odd, one]) == {"net1": [("10.1.0.2", ["web"])]}
