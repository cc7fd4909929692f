"""What is wrong with networks' configurations, before a runtime or a container meets it.

    findings = lint([read_file("/etc/cni/net.d/10-containers.conflist")])

Each finding has its place in a file. What a configuration says is judged by the plugins' own types
and checks; `together` compares files with one another, and with what the host has.
"""

from .files import File, collect, read_file, standard_input
from .finding import Finding, Report, Severity
from .host import Host
from .linting import lint

__all__ = [
    "File",
    "Finding",
    "Host",
    "Report",
    "Severity",
    "collect",
    "lint",
    "read_file",
    "standard_input",
]
