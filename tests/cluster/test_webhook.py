"""webhook: the contract, and a controller that is slow, broken or hostile."""

from __future__ import annotations

import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from cluster.backend_battery import BackendBattery, reconciled
from cluster.kernel_lab import KernelLab
from cni_py.cluster import backends
from cni_py.cluster.underlay import Chosen
from cni_py.cluster.webhook import WebhookBackend, WebhookSettings
from cni_py.cluster.webhook_client import Patience
from cni_py.spec.errors import CniError
from fixtures.certificates import Authority
from fixtures.controller import Controller, problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures.host import Host

BOTH = frozenset({4, 6})
OWN = ("default", "192.168.1.10")
_JSON = {"Content-Type": "application/json"}
QUICK = Patience(answer=2.0, call=3.0, first=0.01, longest=0.02)


class WebhookLab(KernelLab):
    """A host with an `eth0`, and a controller that is reached from the test's own namespace."""

    def __init__(self, host: Host, folder: Path, controller: Controller) -> None:
        super().__init__(host, self.webhook)
        self.folder, self.controller = folder, controller
        self.patience = QUICK
        self.url = controller.url
        folder.mkdir(exist_ok=True)

    def webhook(self) -> WebhookBackend:
        settings = WebhookSettings(url=self.url)
        return WebhookBackend(settings, Chosen(), BOTH, str(self.folder), self.patience)

    def world(self) -> Any:
        at = self.controller
        routes = {node: sorted(map(str, found)) for node, found in at.routes.items()}
        return super().world(), dict(at.nodes), routes

    def furnish(self) -> None:
        super().furnish()
        other = ("default", "192.168.1.77")
        self.controller.nodes[other] = {"addresses": ["192.168.1.77"], "subnets": []}
        self.controller.routes[other] = [
            {"destination": "10.244.77.0/24", "gateway": "192.168.1.77"}
        ]
        self.controller.blocked = [
            {"destination": "10.244.9.128/25", "reason": "a firewall's"},
            {"destination": "fd00:245::/32"},
            {"destination": "nonsense"},
        ]

    def disturb(self, number: int) -> None:
        found = self.controller.routes[OWN]
        found[:] = [one for one in found if f"10.244.{number}.0" not in one["destination"]]

    def write_token(self, text: str, mode: int = 0o600) -> None:
        path = self.folder / "token"
        path.write_text(text)
        path.chmod(mode)


@pytest.fixture
def controller() -> Iterator[Controller]:
    with closing(Controller()) as controller:
        yield controller


@pytest.fixture
def lab(quiet_host: Host, tmp_path: Path, controller: Controller) -> Iterator[WebhookLab]:
    with closing(WebhookLab(quiet_host, tmp_path / "webhook", controller)) as lab:
        yield lab


class TestWebhook(BackendBattery):
    @pytest.fixture
    def lab(self, host: Host, tmp_path: Path, controller: Controller) -> Iterator[WebhookLab]:
        with closing(WebhookLab(host, tmp_path / "webhook", controller)) as lab:
            yield lab


def test_the_specification_is_valid(controller: Controller) -> None:
    validate(controller.specification, cls=OpenAPIV31SpecValidator)
    assert controller.specification["openapi"].startswith("3.1.")


def test_the_controller_is_told_all(lab: WebhookLab) -> None:
    reconciled(lab, lab.view(lab.peer(1)))
    assert lab.controller.nodes[OWN] == {
        "addresses": ["192.168.1.10", "fd00:1:0:1::10"],
        "subnets": ["10.244.0.0/24", "fd00:244::/64"],
    }
    assert lab.controller.routes[OWN] == [
        {"destination": "10.244.0.0/24", "gateway": "192.168.1.10"},
        {"destination": "10.244.1.0/24", "gateway": "192.168.1.101"},
        {"destination": "fd00:244:0:1::/64", "gateway": "fd00:1:0:1::65"},
        {"destination": "fd00:244::/64", "gateway": "fd00:1:0:1::10"},
    ]


def test_each_change_has_a_key_of_its_own(lab: WebhookLab) -> None:
    reconciled(lab, lab.view(lab.peer(1)))
    lab.backend().tear_down()
    keys = lab.controller.keys()
    assert len(keys) == len(set(keys)) == 3


@pytest.mark.parametrize("fault", ["lost", "status 500", "status 429", "broken off"])
def test_a_change_whose_answer_is_lost_is_made_once(lab: WebhookLab, fault: str) -> None:
    view = lab.view(lab.peer(1))
    plan = lab.backend().plan(view)

    def spoiled(answer: Any) -> Any:
        status, headers, body = answer
        if fault == "lost":
            return status, {**headers, "Transfer-Encoding": "chunked"}, b""
        if fault == "broken off":
            return status, {**headers, "Content-Length": "999", "Connection": "close"}, body[:-5]
        return problem(int(fault.split()[1]), "later")

    lab.controller.faults = [spoiled, spoiled]
    assert not lab.backend().carried_out(plan).failed
    announced = [one for method, path, one in lab.controller.seen if _is_announcement(method, path)]
    assert len(announced) == 3
    assert len({one["idempotency-key"] for one in announced}) == 1
    # The announcement and the routes: what came again changed nothing.
    assert lab.controller.changes == 2


def _is_announcement(method: str, path: str) -> bool:
    return method == "PUT" and not path.endswith("/routes")


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for(lab: WebhookLab, as_date: bool) -> None:
    view = lab.view()
    when = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    lab.controller.faults = [problem(503, "busy", Retry_After=when if as_date else "120")]
    backend = lab.backend()
    for _ in range(2):
        with pytest.raises(CniError, match="does not answer") as caught:
            backend.plan(view)
        assert caught.value.code == 11
    # The second time it was left alone.
    assert len(lab.controller.seen) == 1


def test_a_short_retry_after_is_waited_for(lab: WebhookLab) -> None:
    view = lab.view()
    lab.controller.faults = [problem(429, "busy", Retry_After="1")]
    before = datetime.now(UTC)
    assert lab.backend().plan(view).steps
    assert datetime.now(UTC) - before >= timedelta(seconds=1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((200, _JSON, b'{"routes": ['), "cannot be used"),
        ((200, _JSON, b'{"routes": "x"}'), "Expected `array`"),
        ((200, _JSON, b'{"routes": [{"destination": 1}]}'), "cannot be used"),
        ((200, _JSON, b"[" * 100_000), "cannot be used"),
        ((200, {"Content-Type": "text/html"}, b"{}"), "its type is 'text/html'"),
        ((200, _JSON, b" " * (5 << 20)), "larger than 4194304 bytes"),
        ((302, {"Location": "http://169.254.169.254/"}, b""), "a redirect to 'http://169.254."),
        ((403, {}, b""), "does not let this node in: status 403"),
        (problem(422, "no \x1b[31m"), r"refuses: status 422, 'no \x1b[31m'"),
    ],
)
def test_a_hostile_answer_is_refused_and_not_asked_for_again(
    lab: WebhookLab, fault: Any, message: str
) -> None:
    view = lab.view(lab.peer(1))
    lab.controller.faults = [fault]
    with pytest.raises(CniError) as caught:
        lab.backend().plan(view)
    assert caught.value.code == 50
    assert message in str(caught.value)
    assert len(lab.controller.seen) == 1


@pytest.mark.parametrize("kind", ["silent", "trickling"])
def test_a_slow_answer_is_not_waited_for(lab: WebhookLab, kind: str) -> None:
    view = lab.view()
    lab.patience = Patience(answer=0.3, call=0.4, first=0.01, longest=0.02)

    def slow(answer: Any) -> Any:
        if kind == "silent":
            lab.controller.is_over.wait(20)
            return answer
        status, headers, body = answer
        trickles.append(_Trickle(body + b" " * 300, lab.controller.is_over))
        return status, headers, trickles[-1]

    trickles: list[_Trickle] = []
    lab.controller.faults = [slow] * 5
    with pytest.raises(CniError, match=r"within 0\.3 s") as caught:
        lab.backend().plan(view)
    assert caught.value.code == 11
    # Nobody has waited for all of it.
    assert all(one.sent < len(one) for one in trickles)


class _Trickle(bytes):
    """A body of which a byte goes out from time to time."""

    over: Any
    sent: int

    def __new__(cls, body: bytes, over: Any) -> _Trickle:
        made = super().__new__(cls, body)
        made.over, made.sent = over, 0
        return made

    def pieces(self) -> Iterator[bytes]:
        for one in self:
            yield bytes([one])
            self.sent += 1
            self.over.wait(0.1)


def test_nobody_listens(lab: WebhookLab) -> None:
    lab.url = "http://127.0.0.1:1"
    lab.patience = Patience(answer=0.3, call=0.3, first=0.01, longest=0.02)
    view = lab.view()
    with pytest.raises(CniError, match="Connection refused"):
        lab.backend().plan(view)


def test_a_token_is_sent_and_read_anew(lab: WebhookLab) -> None:
    backend, view = lab.backend(), lab.view()
    lab.controller.token = "first"
    with pytest.raises(CniError, match="does not let this node in"):
        backend.plan(view)
    for text in ("first", "second\n"):
        lab.controller.token = text.strip()
        lab.write_token(text)
        backend.plan(view)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("secret", 0o640, "can be read by others: its mode is 0640"),
        ("two lines\nX-More: 1", 0o600, "has no token"),
        ("", 0o600, "has no token"),
    ],
)
def test_a_token_that_cannot_be_is_not_sent(
    lab: WebhookLab, text: str, mode: int, message: str
) -> None:
    lab.write_token(text, mode)
    with pytest.raises(CniError, match=message) as caught:
        lab.backend().plan(lab.view())
    assert caught.value.code == 50
    assert lab.controller.seen == []
    assert "secret" not in str(caught.value)


def test_a_token_is_not_sent_where_others_read_it(lab: WebhookLab) -> None:
    lab.write_token("secret")
    lab.url = "http://192.0.2.1"
    with pytest.raises(CniError, match="is not sent to http://192"):
        lab.backend().plan(lab.view())


def test_certificates_of_both(quiet_host: Host, tmp_path: Path) -> None:
    authority = Authority.made(tmp_path / "authority")
    folder = tmp_path / "webhook"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.load_cert_chain(*authority.sign("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    with (
        closing(Controller(context)) as controller,
        closing(WebhookLab(quiet_host, folder, controller)) as lab,
    ):
        backend, view = lab.backend(), lab.view()
        with pytest.raises(CniError, match="certificate is not trusted") as caught:
            backend.plan(view)
        assert caught.value.code == 50
        (folder / "ca.pem").write_bytes(content(authority.ca))
        with pytest.raises(CniError, match="does not answer"):
            backend.plan(view)
        certificate, key = authority.sign("node")
        (folder / "client.pem").write_bytes(content(certificate))
        (folder / "client.key").write_bytes(content(key))
        (folder / "client.key").chmod(0o644)
        with pytest.raises(CniError, match="can be read by others"):
            backend.plan(view)
        (folder / "client.key").chmod(0o600)
        assert backend.plan(view).steps


@pytest.mark.parametrize(
    ("said", "code"),
    [({"status": "down", "message": "no switch"}, 50), ({"status": "degraded"}, 51)],
)
def test_the_controllers_health_is_the_nodes(lab: WebhookLab, said: Any, code: int) -> None:
    view = lab.view(lab.peer(1))
    reconciled(lab, view)
    lab.controller.health = said
    health = lab.backend().health()
    assert health is not None
    assert health.code == code
    assert said.get("message", "") in str(health)


def test_a_controller_that_does_otherwise_is_told(lab: WebhookLab) -> None:
    view = lab.view(lab.peer(1))
    plan = lab.backend().plan(view)
    lab.controller.faults = [lambda answer: answer, (200, _JSON, b'{"routes": []}')]
    failed = lab.backend().carried_out(plan).failed
    assert ["has other routes than" in one.msg for one in failed] == [True]


def test_the_own_subnet_can_be_blocked(lab: WebhookLab) -> None:
    view = lab.view(lab.peer(1))
    reconciled(lab, view)
    lab.controller.blocked = [{"destination": "10.244.0.0/20", "reason": "mine"}]
    with pytest.raises(CniError, match="gives nobody 10") as caught:
        lab.backend().plan(view)
    assert caught.value.code == 50


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "url"),
        ({"URL": "ftp://x"}, "no http:// or https://"),
        ({"URL": "https://me:secret@x"}, "a user, a query"),
        ({"URL": "https://x/\r\nX: 1"}, "cannot have"),
        ({"URL": "https://x:99999"}, "URL is"),
        ({"URL": "https://x", "Cluster": "../x"}, "Cluster is"),
        ({"URL": "https://x", "Timeout": 0}, "timeout"),
        ({"URL": "https://x", "MTU": -1}, "mtu"),
    ],
)
def test_keys_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError, match=message) as caught:
        backends.make({"Type": "webhook", **keys}, Chosen(), BOTH)
    assert caught.value.code == 7


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
