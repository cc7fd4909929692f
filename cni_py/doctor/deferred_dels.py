"""DELs that launchers have written down while no server was there (decision 29)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni_py.kernel import deferred
from cni_py.spec.errors import CniError

from .finding import fine, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding


def examine(_places: Places) -> Iterator[Finding]:
    """How many wait, and for how long."""
    try:
        names = deferred.pending()
    except CniError as error:
        yield look(error.msg, error.details)
        return
    if not names:
        yield fine("no DEL is deferred")
        return
    since = time.clock_gettime(time.CLOCK_BOOTTIME) - deferred.seconds_of(names[0])
    text = f"{len(names)} DELs are deferred in {deferred.FOLDER}, one for {since:.0f} s"
    remedy = "start a server, or `cni-py gc`; where one runs its log says why they fail"
    yield look(text, remedy)
