"""The wheel and the sdist: what is in them, that they say so, and that they work by themselves."""

from __future__ import annotations

import email
import filecmp
import json
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cni_py.skel import EXECUTABLES
from fixtures.configs import l3
from fixtures.distributions import NATIVE, Distributions, build, unpack
from fixtures.elf import elf_machine, is_static
from fixtures.host import ROOT, Host

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = l3(isGateway=True)
PLATFORMS = ("manylinux2014", "manylinux_2_17", "musllinux_1_1")


def test_tags_are_true(distributions: Distributions) -> None:
    """For any C library: nothing in the wheel asks for one, and the launcher is this machine's."""
    with zipfile.ZipFile(distributions.wheel()) as wheel:
        (path,) = [one for one in wheel.namelist() if one.endswith(".dist-info/WHEEL")]
        tags = email.message_from_bytes(wheel.read(path)).get_all("Tag")
        compiled = {
            one.filename: wheel.read(one)
            for one in wheel.infolist()
            if wheel.read(one)[:4] == b"\x7fELF"
        }
    assert tags == [f"py3-none-{one}_{NATIVE}" for one in PLATFORMS]
    assert list(compiled) == ["cni_py/executables/cni-py-launcher"]
    (launcher,) = compiled.values()
    assert is_static(launcher)
    assert elf_machine(launcher) == NATIVE


def test_sbom_of_the_wheel(distributions: Distributions) -> None:
    """[PEP 770]: what the launcher has taken in, in CycloneDX as its schema wants it."""
    with zipfile.ZipFile(distributions.wheel()) as wheel:
        (path,) = [one for one in wheel.namelist() if ".dist-info/sboms/" in one]
        text = wheel.read(path).decode()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    document = json.loads(text)
    assert document["metadata"]["component"]["version"] == distributions.version
    assert {one["name"] for one in document["components"]} == {
        "cni_py/executables/cni-py-launcher",
        "glibc",
        "libgcc",
    }


def test_reproducible_from_the_sdist(distributions: Distributions, tmp_path: Path) -> None:
    """The sdist alone makes itself and the wheel again, to the byte.

    There is no git, the folder is another one, and so are modes and times.
    """
    sources = unpack(distributions.sdist, tmp_path / "sources", umask=0o077)
    assert not (sources / ".git").exists()
    again = Distributions(tmp_path / "again")
    build(sources, again.folder, "dist", NATIVE, umask=0o077)
    for first, second in (
        (distributions.sdist, again.sdist),
        (distributions.wheel(), again.wheel()),
    ):
        assert first.name == second.name
        assert filecmp.cmp(first, second, shallow=False), first.name


def test_sdist_has_what_git_has(distributions: Distributions, tmp_path: Path) -> None:
    """Tests and documents too: a distribution builds and tests from it."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("this is no git checkout")
    sources = unpack(distributions.sdist, tmp_path)
    there = [one for one in listing.stdout.splitlines() if (ROOT / one).exists()]
    assert [one for one in there if not (sources / one).exists()] == []


@pytest.mark.root
@pytest.mark.slow
def test_installed_from_the_wheel(
    host: Host, fresh_venv: Path, distributions: Distributions, tmp_path: Path
) -> None:
    """[needs the network: pip] From pip install to DEL, with nothing of the checkout."""
    cni_py = str(fresh_venv / "bin" / "cni-py")
    said = host.run(cni_py, "--version", env={"PYTHONSAFEPATH": "1"}).stdout
    assert said == f"cni-py, version {distributions.version}\n"
    assert (fresh_venv / "share" / "man" / "man1" / "cni-py-install.1").is_file()
    folder = tmp_path / "bin"
    host.run(cni_py, "install", str(folder))
    assert set(EXECUTABLES) <= {one.name for one in folder.iterdir()}
    host.path = str(folder)
    container = host.container("c1")
    result = host.add("bridge", NETWORK, container)
    assert result["ips"][0]["address"] == "10.1.2.2/24"
    assert container.reaches("10.1.2.1")
    host.delete("bridge", NETWORK, container)
