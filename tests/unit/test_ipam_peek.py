"""host-local's allocations for who must change nothing."""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from cni_py.ipam.index import Owner
from cni_py.ipam.peek import Peek
from cni_py.ipam.ranges import RangeConfig, range_sets
from cni_py.spec.addresses import parse_cidr

if TYPE_CHECKING:
    from pathlib import Path

BOOT = "this-boot"
[[RUN]] = range_sets([([RangeConfig(subnet=parse_cidr("10.1.2.0/29"))], "ipam.ranges[0]")], "1.0.0")


@pytest.mark.parametrize(("boot", "taken"), [(BOOT, True), ("earlier", False)])
def test_what_is_of_an_earlier_boot(tmp_path: Path, boot: str, taken: bool) -> None:
    """ADD frees it first, and looks for it only when the machine has started since."""
    folder, index = tmp_path / "net", tmp_path / "index"
    folder.mkdir()
    index.mkdir()
    for name in ("10.1.2.1", "10.1.2.2"):
        (folder / name).write_text("c1\r\neth0")
    os.utime(folder / "10.1.2.2", (1, 1))
    (folder / "last_reserved_ip.0").write_text("10.1.2.2")
    (index / "state").write_text(json.dumps({"mtime": folder.stat().st_mtime_ns, "boot": boot}))
    before = sorted(tmp_path.rglob("*"))
    peek = Peek(str(folder), str(index), BOOT)
    free = [RUN.address(one) for one in peek.free_positions(RUN, 0, RUN.size)]
    assert (ip_address("10.1.2.2") not in free) == taken
    assert ip_address("10.1.2.1") not in free
    assert peek.last_reserved(0) == ip_address("10.1.2.2")
    assert peek.holder(ip_address("10.1.2.1")) == Owner("c1", "eth0")
    assert peek.claim(RUN, ip_address("10.1.2.3"))
    assert not peek.claim(RUN, ip_address("10.1.2.3"))
    assert sorted(tmp_path.rglob("*")) == before


def test_owner_without_an_index(tmp_path: Path) -> None:
    """As the reference leaves it."""
    (tmp_path / "10.1.2.2").write_text("c1\r\neth0")
    peek = Peek(str(tmp_path), str(tmp_path / "none"), BOOT)
    assert peek.release(Owner("c1", "eth0")) == [ip_address("10.1.2.2")]
    assert peek.release(Owner("c2", "eth0")) == []
    assert peek.claim(RUN, ip_address("10.1.2.2"))


def test_no_folder(tmp_path: Path) -> None:
    peek = Peek(str(tmp_path / "none"), str(tmp_path / "index"), BOOT)
    assert next(peek.free_positions(RUN, 0, RUN.size)) == 0
    assert peek.entry(Owner("c1", "eth0")) is None
