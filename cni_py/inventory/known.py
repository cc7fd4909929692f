"""What files know of attachments: records, the cache of results, and host-local's owners."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cni_py.dhcp.store import FOLDER as LEASES
from cni_py.plugins import (
    firewall_record,
    host_device_record,
    masquerade,
    overlay,
    port_mappings,
    sbr_record,
    services,
    spoof_check,
)
from cni_py.spec.attachment import Attachment

from .model import Problem
from .names import named
from .rules import RuleRecords

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni_py.ipam.listing import Allocation, Listing
    from cni_py.plugins.records import Records

    from .configurations import Kept


_DAMAGED = "is damaged: what it said is not known"


@dataclass
class Known:
    """What is known of one attachment without asking the kernel."""

    attachment: Attachment
    cached: Kept | None = None
    allocations: list[Allocation] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    by_cni_py: bool = False

    @property
    def since(self) -> float:
        """The first time that a file tells."""
        times = [one.since for one in self.allocations]
        times += [] if self.cached is None else [self.cached.since]
        times += [_modified(path) for path in self.files if not times]
        return min(filter(None, times), default=0.0)


@dataclass
class Files:
    """All of them, by attachment, and the records of rules; names by the attachment's key."""

    known: dict[Attachment, Known]
    records: RuleRecords
    names: dict[str, tuple[str, ...]]


def read_files(
    cached: Iterable[Kept],
    listings: Mapping[tuple[str, str], Listing],
    problems: list[Problem],
) -> Files:
    """Put together what the files know."""
    known: dict[Attachment, Known] = {}

    def of(attachment: Attachment) -> Known:
        return known.setdefault(attachment, Known(attachment))

    for one in cached:
        its = of(one.attachment)
        its.cached = one
        its.paths += [one.netns] if one.netns else []
        its.files.append(one.path)
        its.evidence.append("libcni's cache")
    for (network, _), listed in listings.items():
        _of_host_local(network, listed, known)
    read: dict[str, Any] = defaultdict(list)
    for name, records in _records().items():
        found, damaged = records.seen()
        problems += (Problem(subject=path, text=_DAMAGED) for path in damaged)
        read[name] = found
        for record in found:
            its = of(record.attachment)
            its.by_cni_py = True
            its.evidence.append(f"{name}'s record")
            its.files.append(f"{records.folder}/{record.attachment.key}.json")
            sandbox = getattr(record, "sandbox", None)
            its.paths += [sandbox.path] if sandbox is not None and sandbox.path else []
    names: dict[str, tuple[str, ...]] = {}
    for called in named(problems):
        its = of(called.record.attachment)
        its.by_cni_py = True
        its.evidence.append("dns's names")
        its.files.append(called.path)
        sandbox = called.record.sandbox
        its.paths += [sandbox.path] if sandbox is not None and sandbox.path else []
        names[its.attachment.key] = called.names
    for its in known.values():
        lease = f"{LEASES}/{its.attachment.key}.json"
        if its.by_cni_py and os.path.lexists(lease):
            its.files.append(lease)
            its.evidence.append("dhcp's lease")
    rules = RuleRecords(read["portmap"], read["masquerade"], read["firewall"])
    return Files(known, rules, names)


def _records() -> dict[str, Records[Any]]:
    return {
        "portmap": port_mappings.RECORDS,
        "firewall": firewall_record.RECORDS,
        "masquerade": masquerade.RECORDS,
        "sbr": sbr_record.RECORDS,
        "services": services.RECORDS,
        "spoof-check": spoof_check.RECORDS,
        "host-device": host_device_record.RECORDS,
        "overlay": overlay.RECORDS,
    }


def _of_host_local(network: str, listed: Listing, known: dict[Attachment, Known]) -> None:
    for one in listed.allocations:
        if one.owner is None:
            continue
        attachment = Attachment(network, *one.owner)
        its = known.setdefault(attachment, Known(attachment))
        its.allocations.append(one)
        its.files.append(one.path)
        if "host-local" not in its.evidence:
            its.evidence.append("host-local")
        if one.sandbox is not None:
            its.by_cni_py = True
            its.paths += [one.sandbox.path] if one.sandbox.path else []


def _modified(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0
