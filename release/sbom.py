"""sbom NAME VERSION FOLDER...: what is below the folders, as a CycloneDX document on stdout.

A folder is one of Python packages (a site-packages), or a root file system: then Debian's packages
in it are listed too. What a wheel says of itself (PEP 770) is taken along. The same
folders give the same document, without a time or number of its own. Needs cyclonedx-python-lib.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

if TYPE_CHECKING:
    from collections.abc import Iterator

_DPKG = "var/lib/dpkg/status"
_SITE_PACKAGES = ("usr/lib/cni-py", "usr/lib/python3/dist-packages", "*/lib/python3*/site-packages")


def main() -> None:
    """Print the document; a folder without anything in it is an error."""
    if len(sys.argv) < 4:
        sys.exit("usage: sbom.py NAME VERSION FOLDER...")
    name, version, *folders = sys.argv[1:]
    bom = Bom()
    bom.metadata.component = Component(
        name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name
    )
    for folder in map(Path, folders):
        found = list(components(folder))
        if not found:
            sys.exit(f"sbom.py: {folder} has no Python or Debian packages")
        bom.components.update(found)
    bom.register_dependency(bom.metadata.component, bom.components)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    # Those two are new in each run.
    del document["serialNumber"], document["metadata"]["timestamp"]
    text = json.dumps(document, indent=2, sort_keys=True)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"sbom.py: {error}")
    print(text)


def components(folder: Path) -> Iterator[Component]:
    """What one folder has."""
    sites = [folder]
    if (folder / _DPKG).is_file():
        yield from _debian((folder / _DPKG).read_text())
        sites = [path for pattern in _SITE_PACKAGES for path in sorted(folder.glob(pattern))]
    for site in sites:
        yield from map(_python, distributions(path=[str(site)]))
        yield from _told_by_wheels(site)


def _python(distribution: Distribution) -> Component:
    name = distribution.name.lower().replace("_", "-").replace(".", "-")
    metadata = distribution.metadata
    told = metadata.get("License-Expression") or metadata.get("License") or ""
    purl = PackageURL("pypi", name=name, version=distribution.version)
    # Some have the whole text of the license there, and some nothing.
    if not told or "\n" in told:
        classifiers = metadata.get_all("Classifier") or []
        told = next((one.split(" :: ")[-1] for one in classifiers if one.startswith("License")), "")
    licenses = [LicenseFactory().make_from_string(told)] if told else []
    return Component(
        name=name, version=distribution.version, purl=purl, bom_ref=str(purl), licenses=licenses
    )


def _told_by_wheels(site: Path) -> Iterator[Component]:
    for path in sorted(site.glob("*.dist-info/sboms/*.json")):
        for one in json.loads(path.read_text())["components"]:
            component = Component.from_json(one)  # type: ignore[attr-defined]
            component.bom_ref.value = f"{path.stem}/{one['bom-ref']}"
            yield component


def _debian(status: str) -> Iterator[Component]:
    """The installed packages of dpkg's status file (deb-control(5))."""
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status") != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        qualifiers = {"arch": fields["Architecture"]}
        purl = PackageURL("deb", "debian", name, version, qualifiers)
        yield Component(name=name, version=version, purl=purl, bom_ref=str(purl))


if __name__ == "__main__":
    main()
