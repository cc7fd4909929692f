"""What an EC2 instance is told of itself: the instance metadata service, version 2 (a token first).

AWS_EC2_METADATA_SERVICE_ENDPOINT, as AWS's own tools have it, names another place than
http://169.254.169.254.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from cni_py.spec.errors import CniError, Code

from .exchange import Answer, ExchangeError, Limits, exchange, parse_place

ENDPOINT = "http://169.254.169.254"
_LIMITS = Limits(seconds=2.0, body=16384)
_ATTEMPTS = 3
_OK, _NOT_FOUND = 200, 404
_LIFETIME = "300"
_TOKEN = re.compile(r"[A-Za-z0-9_=+/.-]{1,1024}")
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}")
_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")
_INTERFACE = re.compile(r"eni-[0-9a-f]{8,17}")


@dataclass(frozen=True, slots=True)
class Instance:
    """The instance that this is, and its network interface (ENI) that leads to other nodes."""

    region: str
    instance: str
    interface: str


def instance(mac: str, link: str) -> Instance:
    """Of this instance, the interface with that MAC address, which the kernel calls `link`.

    Raises CniError 50.
    """
    asked = _Metadata(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or ENDPOINT)
    region = asked.value("placement/region", _REGION)
    name = asked.value("instance-id", _INSTANCE)
    interface = asked.value(f"network/interfaces/macs/{mac}/interface-id", _INTERFACE, mac, link)
    return Instance(region, name, interface)


class _Metadata:
    def __init__(self, endpoint: str) -> None:
        try:
            self._place = parse_place(endpoint)
        except ValueError as error:
            msg = f"AWS_EC2_METADATA_SERVICE_ENDPOINT cannot be used: {error}"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg) from None
        answer = self._ask(
            "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": _LIFETIME}
        )
        self._headers = {"X-aws-ec2-metadata-token": self._text(answer, "api/token", _TOKEN)}

    def value(self, name: str, form: re.Pattern[str], mac: str = "", link: str = "") -> str:
        answer = self._ask("GET", f"/latest/meta-data/{name}", self._headers)
        if mac and answer.status == _NOT_FOUND:
            msg = f"the instance has no network interface with the MAC address {mac} of {link}"
            details = "name the interface that the VPC knows"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details)
        return self._text(answer, name, form)

    def _text(self, answer: Answer, name: str, form: re.Pattern[str]) -> str:
        text = answer.body.decode("ascii", "replace").strip()
        if answer.status != _OK or not form.fullmatch(text):
            what = f"status {answer.status}" if answer.status != _OK else ascii(text[:40])
            msg = f"the instance metadata service has no {name}: {what}"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg)
        return text

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        problem = ""
        for _ in range(_ATTEMPTS):
            try:
                answer = exchange(self._place, method, path, limits=_LIMITS, headers=headers)
            except ExchangeError as error:
                problem = str(error)
            else:
                if answer.status < 500:
                    return answer
                problem = f"status {answer.status}"
        msg = f"the instance metadata service at {self._place} cannot be asked: {problem}"
        details = "aws-vpc runs on EC2; in a container the instance's hop limit has to be 2"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details)
