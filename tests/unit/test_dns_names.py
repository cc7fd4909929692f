"""Names of DNS: which there are, how they are asked for, and what zones a subnet has."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.spec.dns_names import dns_name, forms, reverse_zones


@pytest.mark.parametrize(
    "text", ["web", "web-1", "proj_web_1", "0", "a.b.c", "x" * 63, ".".join(["x" * 63] * 3)]
)
def test_names_are_taken_in_lower_case(text):
    assert dns_name(text) == text
    assert dns_name(text.upper()) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "web.",
        ".web",
        "a..b",
        "-web",
        "web-",
        "x" * 64,
        ".".join(["x" * 63] * 4),
        "web\n10.0.0.1 bank",
        "web bank",
        "web\tbank",
        "--server=1.2.3.4",
        "web\r",
        "web\0",
        "web/24",
        "web#",
        "10.0.0.1",
        "wéb",
        "localhost",
        "a.localhost",
        "\udcff",
        "\N{KELVIN SIGN}",
    ],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match=r".") as refused:
        dns_name(text)
    assert str(refused.value).isprintable()


@given(st.text())
def test_a_name_is_one_word_of_a_hosts_file(text):
    try:
        name = dns_name(text)
    except ValueError:
        return
    assert name.split() == [name]
    assert name.isascii()
    assert not name.startswith(("#", "-"))


def test_a_name_is_asked_for_in_the_domain_and_alone():
    assert forms("web", "cni.internal") == ("web.cni.internal", "web")
    assert forms("web.default", "cni.internal") == ("web.default.cni.internal", "web.default")
    assert forms("web.cni.internal", "cni.internal") == ("web.cni.internal",)
    assert forms("x." * 120 + "x", "cni.internal") == ("x." * 120 + "x",)


@pytest.mark.parametrize(
    ("subnet", "zones"),
    [
        ("10.9.0.0/24", ["0.9.10.in-addr.arpa"]),
        ("10.9.0.0/23", ["0.9.10.in-addr.arpa", "1.9.10.in-addr.arpa"]),
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("10.9.0.7/32", ["7.0.9.10.in-addr.arpa"]),
        ("fd09::/64", ["0.0.0.0.0.0.0.0.0.0.0.0.9.0.d.f.ip6.arpa"]),
        ("fd09::/63", [f"{one}.0.0.0.0.0.0.0.0.0.0.0.9.0.d.f.ip6.arpa" for one in (0, 1)]),
    ],
)
def test_the_reverse_zones_of_a_subnet(subnet, zones):
    assert reverse_zones(ip_network(subnet)) == zones


@given(st.integers(0, 2**32 - 1), st.integers(1, 32))
def test_each_address_of_a_subnet_is_in_one_of_its_zones(number, length):
    network = ip_network((number, length), strict=False)
    name = f".{ip_address(number).reverse_pointer}"
    assert sum(name.endswith(f".{zone}") for zone in reverse_zones(network)) == 1
