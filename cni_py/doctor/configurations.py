"""Networks' configurations, as `cni-py lint` finds them."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING

from cni_py.lint import Host, collect, lint

from .finding import broken, fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding

# Of one file; `cni-py lint` has them all.
_SHOWN = 3
_SAYS = {"error": broken, "warning": look}


def examine(places: Places) -> Iterator[Finding]:
    """Look at each file, at what they say of one another, and at what the host has."""
    files, unreadable = collect([places.net_dir])
    for text in unreadable:
        yield broken(text, "mend it, or move it away: runtimes go by what is in the folder")
    host = Host.with_executables(str(places.folder)).with_kernel()
    found: dict[str, list[Finding]] = defaultdict(list)
    for one in lint(files, host):
        if one.severity in _SAYS:
            found[one.file].append(_SAYS[one.severity](str(one), _linting(one.file)))
    for file, findings in found.items():
        yield from findings[:_SHOWN]
        if len(findings) > _SHOWN:
            yield look(f"{file}: {len(findings) - _SHOWN} more mistakes", _linting(file))
    if not files and not unreadable:
        yield note(f"{places.net_dir} has no configuration: runtimes have no network to give")
    elif not found and not unreadable:
        yield fine(f"{len(files)} configurations have no mistake")


def _linting(file: str) -> str:
    return shlex.join(("cni-py", "lint", file))
