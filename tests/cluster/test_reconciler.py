"""The loop: what somebody undoes comes back by itself, and nothing is done without a reason."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cluster.kernel_lab import KernelLab
from cluster.test_vxlan import vtep, vxlan
from cni_py.cluster.backend import Announcement, Backend, Node, Plan, Report, View
from cni_py.cluster.reconciler import Pace, Reconciler, Round
from fixtures.underlay import entered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cni_py.kernel.changes import Change
    from fixtures.host import Host

_SECONDS = 15
# No comparison without a reason while a test runs.
_PACE = Pace(every=3600, settle=0.005, retry=0.05)


class Running:
    """A reconciler in the test's event loop, and its rounds."""

    def __init__(self, reconciler: Callable[[Callable[[Round], None]], Reconciler]) -> None:
        self.rounds: list[Round] = []
        self.backend: Backend | None = None
        self.reconciler = reconciler(self.rounds.append)

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(_SECONDS):
            while not await asyncio.to_thread(check):
                await asyncio.sleep(0.02)

    async def settled(self) -> None:
        """The last round was good."""
        await self.until(lambda: self.rounds and self.rounds[-1].is_good)


@pytest.fixture
def lab(host: Host) -> Iterator[KernelLab]:
    with closing(KernelLab(host, vxlan, vtep)) as lab:
        yield lab


def run(lab: KernelLab, scenario: Callable[[Running], Awaitable[None]]) -> list[Round]:
    async def main() -> list[Round]:
        backend = lab.backend()
        with entered(lab.host):
            running = Running(lambda done: Reconciler(backend, done, _PACE))
        running.backend = backend
        task = asyncio.create_task(running.reconciler.run())
        running.reconciler.show(lab.view(lab.peer(1), lab.peer(2)))
        try:
            await scenario(running)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return running.rounds

    return asyncio.run(main())


def test_what_somebody_takes_away_comes_back(lab: KernelLab) -> None:
    host = lab.host

    async def scenario(running: Running) -> None:
        await running.settled()
        right = lab.world()
        for command in (
            "ip route del 10.244.1.0/24",
            "ip -6 route del fd00:244:0:2::/64",
            "ip neigh del 10.244.1.0 dev flannel.1",
            "bridge fdb del 02:00:00:00:04:01 dev flannel.1 dst 192.168.1.101 self",
            "ip addr flush dev flannel.1",
            "ip link set flannel.1 down",
            "ip link set flannel.1 mtu 1300",
            "ip link del flannel.1",
        ):
            await asyncio.to_thread(host.run, *command.split())
            try:
                await running.until(lambda: lab.world() == right)
            except TimeoutError:
                pytest.fail(f"after {command}: {running.rounds[-2:]}")

    rounds = run(lab, scenario)
    assert all(one.is_good for one in rounds)


def test_it_follows_the_underlay(lab: KernelLab) -> None:
    async def scenario(running: Running) -> None:
        await running.settled()
        said = running.rounds[-1].said
        await asyncio.to_thread(lab.host.run, "ip", "link", "set", "eth0", "mtu", "1400")
        await running.until(lambda: running.rounds[-1].mtu == 1330)
        # Without the underlay there is an error, and no more than that.
        await asyncio.to_thread(lab.host.run, "ip", "link", "set", "eth0", "down")
        await running.until(lambda: running.rounds[-1].error is not None)
        lines = "link set eth0 up\nroute replace default via 192.168.1.254\n"
        lines += "addr replace fd00:1:0:1::10/64 dev eth0 nodad\n"
        await asyncio.to_thread(lab.host.run, "ip", "-batch", "-", stdin=lines)
        await running.settled()
        assert running.rounds[-1].said == said

    run(lab, scenario)


def test_what_containers_do_is_no_reason(lab: KernelLab) -> None:
    host = lab.host

    async def scenario(running: Running) -> None:
        await running.settled()
        # What making its own links reported is through.
        await asyncio.sleep(20 * _PACE.settle)
        await running.settled()
        before = len(running.rounds)
        lines = """link add v1 type veth peer name v2
link set v1 up
link set v2 up
addr add 10.99.0.1/24 dev v1
route add 10.250.0.0/16 via 10.99.0.9 dev v1
neigh add 10.99.0.9 lladdr 02:00:00:00:00:07 dev v1
link del v1
"""
        await asyncio.to_thread(host.run, "ip", "-batch", "-", stdin=lines)
        await asyncio.to_thread(host.run, "ip", "route", "del", "10.244.1.0/24")
        await running.until(lambda: len(running.rounds) > before)
        # The one that repairs, and none before it.
        assert [one.report.done for one in running.rounds[before:]] == [
            ["add route 10.244.1.0/24 via 10.244.1.0 dev flannel.1"]
        ]

    run(lab, scenario)


def test_who_leaves_and_comes_is_followed(lab: KernelLab) -> None:
    async def scenario(running: Running) -> None:
        await running.settled()
        running.reconciler.show(lab.view(lab.peer(2)))
        await running.until(lambda: "10.244.1.0/24" not in lab.host.run("ip", "route").stdout)
        assert "10.244.2.0/24" in lab.host.run("ip", "route").stdout

    run(lab, scenario)


def test_peers_that_come_and_go_are_followed_without_a_look(lab: KernelLab) -> None:
    host = lab.host
    looks = []

    async def scenario(running: Running) -> None:
        await running.until(lambda: len(running.rounds) > 1 and running.rounds[-1].is_good)
        # What making its own links reported is through.
        await asyncio.sleep(20 * _PACE.settle)
        await running.settled()
        kernel = running.backend._kernel  # type: ignore[attr-defined]
        look = kernel.look
        kernel.look = lambda: (looks.append(1), look())[1]
        for number in (3, 4):
            running.reconciler.show(lab.view(*(lab.peer(one) for one in range(1, number + 1))))
            wanted = f"10.244.{number}.0/24"
            await running.until(
                lambda wanted=wanted: any(wanted in x for x in running.rounds[-1].report.done)
            )
            assert wanted in host.run("ip", "route").stdout
        # One that goes, too: that the kernel reports what was removed is no reason.
        running.reconciler.show(lab.view(*map(lab.peer, range(1, 6))))
        await running.until(lambda: "10.244.5.0/24" in host.run("ip", "route").stdout)
        rounds = len(running.rounds)
        running.reconciler.show(lab.view(*map(lab.peer, range(1, 5))))
        await running.until(lambda: "10.244.5.0/24" not in host.run("ip", "route").stdout)
        await running.until(lambda: len(running.rounds) > rounds)
        await asyncio.sleep(20 * _PACE.settle)
        assert looks == []
        followed = lab.world()
        assert lab.backend().plan(lab.view(*map(lab.peer, range(1, 5)))).steps == []
        # What somebody takes away is seen all the same.
        await asyncio.to_thread(host.run, "ip", "route", "del", "10.244.3.0/24")
        await running.until(lambda: lab.world() == followed)
        assert looks

    run(lab, scenario)


def test_a_fight_slows_down(lab: KernelLab) -> None:
    class Contested(Backend):
        """Somebody undoes at once what it does."""

        name = "contested"

        def announce(self) -> Announcement:
            return Announcement(self.name)

        def plan(self, view: View) -> Plan:
            raise NotImplementedError

        def mtu(self) -> int:
            return 1500

        def tear_down(self) -> Report:
            return Report()

        def concerns(self, change: Change) -> bool:
            return change.kind == "link"

        def reconcile(self, view: View) -> Report:
            assert view.own.said.backend == self.name
            lab.host.run("ip", "link", "set", "eth0", "alias", str(len(running.rounds)))
            return Report(["again"])

    async def main() -> None:
        task = asyncio.create_task(running.reconciler.run())
        running.reconciler.show(View(Node(Announcement("contested"))))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def made() -> Running:
        with entered(lab.host):
            return Running(lambda done: Reconciler(Contested(), done, Pace(60, 0.001, 0.001)))

    with asyncio.Runner() as runner:
        running = runner.run(made())
        runner.run(main())
    # Without it there would be hundreds.
    assert 2 <= len(running.rounds) <= 15
