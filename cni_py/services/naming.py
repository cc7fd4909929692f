"""The names of services in the networks' own DNS: what of this host's leads where, and of others.

The two are published apart: this host's follow its checks at once, and go on whatever becomes of
the registry; others' are what the registry has last said.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py import names
from cni_py.cluster.agent_log import log
from cni_py.spec.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Entries = Sequence[tuple[str, Sequence[str]]]

HERE, ELSEWHERE = "services-here", "services-elsewhere"


class Naming:
    """What has been published, so that nothing is written twice."""

    def __init__(self) -> None:
        self._published: dict[tuple[str, str], tuple[int, Entries]] = {}
        self._told = ""

    def publish(self, source: str, wanted: Mapping[str, Entries]) -> None:
        """Have the services lead there, in each network that has names. Raises nothing.

        What fails is logged once, and tried again with the next call.
        """
        problem = ""
        try:
            networks = names.networks()
        except CniError as error:
            networks, problem = [], str(error)
        for network in networks:
            try:
                self._publish(network, source, wanted.get(network.name, ()))
            except (CniError, OSError, ValueError) as error:
                problem = problem or f"{network.name}: {error}"
        if problem and problem != self._told:
            log("names not published", why=problem)
        self._told = problem

    def _publish(self, network: names.Network, source: str, wanted: Entries) -> None:
        key, path = (network.name, source), f"{network.hosts}/{source}"
        # Another folder is that of a server that has been started anew, and knows nothing.
        folder = os.stat(network.hosts).st_ino
        if self._published.get(key) == (folder, wanted) and os.path.exists(path) == bool(wanted):
            return
        self._published.pop(key, None)
        if wanted:
            names.publish(network, source, wanted, "services, by cni-py agent")
        else:
            names.withdraw(network, source)
        self._published[key] = (folder, wanted)
