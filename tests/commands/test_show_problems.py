"""What does not fit of a container, as `cni-py show CONTAINER` sees it."""

from __future__ import annotations

from fixtures.chains import attach, configure, full
from fixtures.host import BIN


def test_differences_from_what_was_set(host):
    """Each is made by hand, one after another."""
    network = full()
    configure(host, network)
    container = host.container("web")
    attach(host, network, container, cached=True)
    mac = container.link()["address"]
    port = host.ports("cni2")[0]["ifname"]

    def problems() -> set[str]:
        done = host.run(str(BIN / "cni-py"), "show", container.id, check=False)
        found = {line[2:] for line in done.stdout.splitlines() if line.startswith("! ")}
        assert done.status == (1 if found else 0), done
        return found

    assert problems() == set()
    inside = (
        ("ip route del default", "eth0 does not have its route to 0.0.0.0/0"),
        ("ip addr del 10.87.0.2/16 dev eth0", "eth0 does not have its address 10.87.0.2/16"),
        ("ip link set eth0 mtu 1400", f"MTU 1400 of eth0, but 1500 of its host end {port}"),
        (
            "sysctl -qw net.ipv4.conf.eth0.arp_filter=0",
            "net.ipv4.conf.eth0.arp_filter is 0, tuning has set 1",
        ),
        (
            "ip link set eth0 address 02:00:00:00:00:01",
            f"eth0 has the hardware address 02:00:00:00:00:01, not {mac}",
        ),
    )
    for command, said in inside:
        container.run(*command.split())
        assert said in problems(), command
    outside = (
        (
            "rm /var/lib/cni/networks/full/fd87::2",
            "host-local has no file of fd87::2: it may give the address to another container",
        ),
        ("ip link set cni2 down", "its bridge cni2 is down"),
        (f"ip link set {port} nomaster", f"its host end {port} is on no bridge any more"),
        (f"ip link set {port} down", f"its host end {port} is down"),
    )
    for command, said in outside:
        host.run(*command.split())
        assert said in problems(), command


def test_address_of_two_containers(host):
    network = full()
    first, second = host.container("c1"), host.container("c2")
    attach(host, network, first)
    attach(host, network, second)
    second.run("ip", "addr", "add", "10.87.0.2/16", "dev", "eth0")
    done = host.run(str(BIN / "cni-py"), "show", "--section", "problems", check=False)
    assert f"{second.id}: 10.87.0.2 is also that of {first.id} (eth0)" in done.stdout
