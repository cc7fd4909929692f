"""The subnets that a Kubernetes cluster has given this node, and a network that uses them.

A container asks the API server with its service account's token (kubernetes.io/docs, "Accessing the
Kubernetes API from a Pod"); the server's certificate is checked against the cluster's own CA.
"""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from cni_py.cluster.exchange import ExchangeError, Limits, Place, exchange

from .asked import InstallationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Where a pod has its service account's token and the cluster's ca.crt.
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_LIMITS = Limits(10.0, 4 * 1024 * 1024)


class Cluster(NamedTuple):
    """Where the API server is, and the folder with `token` and `ca.crt`."""

    host: str
    port: str
    account: Path

    @classmethod
    def of(cls, environ: Mapping[str, str], account: Path) -> Cluster:
        """As a container in a pod finds it. Raises InstallationError outside of one."""
        host, port = (environ.get(f"KUBERNETES_SERVICE_{one}", "") for one in ("HOST", "PORT"))
        if not host or not port:
            msg = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"
            raise InstallationError(f"{msg}: only a container in a pod has them")
        return cls(host, port, account)

    def pod_cidrs(self, node: str) -> list[str]:
        """The subnets in the node's spec, none while it has none.

        Raises InstallationError for what waiting does not mend, OSError for what it may.
        """
        spec = self._get(f"/api/v1/nodes/{quote(node, safe='')}").get("spec") or {}
        given = spec.get("podCIDRs") or [spec.get("podCIDR")]
        found = [one for one in given if one]
        for one in found:
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise InstallationError(f"the podCIDR of node {node} is none: {error}") from None
        return found

    def _get(self, path: str) -> dict[str, Any]:
        # The token is exchanged for another one every hour: it is read for each request.
        token = (self.account / "token").read_text().strip()
        try:
            place = Place(is_tls=True, host=self.host, port=int(self.port), path="")
            tls = ssl.create_default_context(cafile=os.fspath(self.account / "ca.crt"))
            answer = exchange(
                place,
                "GET",
                path,
                limits=_LIMITS,
                headers={"Authorization": f"Bearer {token}"},
                tls=tls,
            )
        except (ExchangeError, ValueError) as error:
            raise OSError(None, f"the API server is not heard: {error}") from error
        if answer.status in (401, 403):
            msg = f"the API server answers {answer.status} to {path}"
            raise InstallationError(f"{msg}: the service account needs the verb get on nodes")
        if answer.status != HTTPStatus.OK:
            raise OSError(None, f"the API server answers {answer.status} to {path}")
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise OSError(None, f"the API server's answer is none: {error}") from error
        if not isinstance(found, dict):
            raise OSError(None, "the API server's answer is no object")
        return found


def needs_subnets(network: Any) -> bool:
    """Whether a network has a host-local without addresses. Raises InstallationError."""
    return any(map(_is_open, _pools(network)))


def with_subnets(network: Any, subnets: list[str]) -> dict[str, Any]:
    """The network with the subnets in each host-local that has no addresses of its own.

    One range set a subnet: a container gets an address of each. Raises InstallationError.
    """
    filled: dict[str, Any] = json.loads(json.dumps(network))
    for pool in _pools(filled):
        if _is_open(pool):
            pool["ranges"] = [[{"subnet": one}] for one in subnets]
    return filled


def _pools(network: Any) -> list[dict[str, Any]]:
    plugins = network.get("plugins") if isinstance(network, dict) else None
    if not isinstance(plugins, list) or not plugins:
        raise InstallationError("the network is no list of plugins")
    found = [one.get("ipam") for one in plugins if isinstance(one, dict)]
    return [one for one in found if isinstance(one, dict) and one.get("type") == "host-local"]


def _is_open(pool: dict[str, Any]) -> bool:
    return "ranges" not in pool and "subnet" not in pool
