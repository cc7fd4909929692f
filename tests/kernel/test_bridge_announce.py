"""The neighbours hear of a new address: a real listener on the bridge gets the frames."""

from __future__ import annotations

from fixtures.capture import capture
from fixtures.configs import V4, V6, host_local, l3
from fixtures.host import Host


def test_gratuitous_arp_and_unsolicited_advertisement(host: Host) -> None:
    config = l3(ipam=host_local(V4, V6))
    listener, speaker = host.container("c1"), host.container("c2")
    host.add("bridge", config, listener)
    with capture(host, "eth0", listener.netns) as heard:
        result = host.add("bridge", config, speaker)
        mac = bytes.fromhex(result["interfaces"][2]["mac"].replace(":", ""))
        arp = heard.wait_for(lambda frame: frame[12:14] == b"\x08\x06" and frame[6:12] == mac)
        advert = heard.wait_for(
            lambda frame: (
                frame[12:14] == b"\x86\xdd"
                and frame[6:12] == mac
                and frame[54] == 136
                and frame[62:78] == bytes.fromhex("fd000001000000000000000000000003")
            )
        )
    # Sender and target are the address itself (RFC 5227 section 3).
    assert arp[28:32] == arp[38:42] == bytes((10, 1, 2, 3))
    assert arp[22:28] == mac
    # Override, not solicited, with the target's link address (RFC 4861 section 4.4).
    assert advert[58] == 0x20
    assert advert[78:80] == b"\x02\x01"
    assert advert[80:86] == mac


def test_reused_address_is_reached_at_once(host: Host) -> None:
    """A neighbour's cache entry for the address's former holder does not outlive the ADD."""
    config = l3(ipam={"type": "static", "addresses": [{"address": "10.1.2.50/24"}]})
    peer, old, new = host.container("c1"), host.container("c2"), host.container("c3")
    host.add("bridge", l3(), peer)
    host.add("bridge", config | {"name": "net2"}, old)
    assert peer.reaches("10.1.2.50")
    host.delete("bridge", config | {"name": "net2"}, old)
    host.add("bridge", config | {"name": "net2"}, new)
    (neighbour,) = [one for one in peer.ip("neigh") if one["dst"] == "10.1.2.50"]
    assert neighbour["lladdr"] == new.link()["address"]
    assert peer.reaches("10.1.2.50")
