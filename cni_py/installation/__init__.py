"""Putting cni-py onto a machine, or into an image, and taking it away again.

`executables`, `units` and `configurations` say what has to be in a file, `planning` what is to be
done for that, and `carrying_out` does it. `record` knows what was done, also after a kill.
"""

from . import systemd, writing
from .asked import InstallationError, Wanted
from .carrying_out import install, uninstall
from .executables import executables
from .package import launcher_program
from .planning import Installation, Step, plan_installation, plan_removal
from .root import Root

__all__ = [
    "Installation",
    "InstallationError",
    "Root",
    "Step",
    "Wanted",
    "executables",
    "install",
    "launcher_program",
    "plan_installation",
    "plan_removal",
    "systemd",
    "uninstall",
    "writing",
]
