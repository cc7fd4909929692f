"""Reading resolv.conf(5) into the protocol's `dns`."""

from __future__ import annotations

from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import DNS

_MIN_FIELDS = 2


def read_resolv_conf(path: str) -> DNS:
    """The file's content. Raises CniError 7 when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            return parse_resolv_conf(file.read())
    except OSError as error:
        msg = f"cannot read ipam.resolvConf {path}: {error.strerror}"
        raise CniError(Code.INVALID_CONFIG, msg) from error


def parse_resolv_conf(text: str) -> DNS:
    """`search` and `options` add up over lines, the last `domain` counts (plugins.md 5.1.4)."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain = ""
    for line in text.split("\n"):
        fields = line.split()
        if len(fields) < _MIN_FIELDS or fields[0][0] in "#;":
            continue
        keyword, *values = fields
        if keyword == "nameserver":
            nameservers.append(values[0])
        elif keyword == "domain":
            domain = values[0]
        elif keyword == "search":
            search.extend(values)
        elif keyword == "options":
            options.extend(values)
    return DNS(tuple(nameservers), domain, tuple(search), tuple(options))
