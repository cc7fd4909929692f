"""Addresses as text: spec.md 8.3, 8.4, traps 8 and 9; plugins.md J-04."""

import re
import socket
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec import addresses
from cni_py.spec.addresses import IP, Cidr, Network, parse_cidr, parse_ip

quick = settings(max_examples=300, deadline=None)


def outcome(function, *arguments):
    """What the call returned, and the ValueError that it raised instead."""
    try:
        return function(*arguments), None
    except ValueError as error:
        return None, error


def packed(text):
    """The 4 or 16 bytes that the C library reads in `text`; None when it refuses."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
    return None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("198.51.100.9", IPv4Address("198.51.100.9"), id="IPv4"),
        pytest.param("2001:DB8::5", IPv6Address("2001:db8::5"), id="[R-03] upper case"),
        pytest.param("::ffff:1.2.3.4", IPv4Address("1.2.3.4"), id="[J-04] mapped, dotted"),
        pytest.param("::ffff:102:304", IPv4Address("1.2.3.4"), id="[trap 9] mapped, hex"),
        pytest.param("::1.2.3.4", IPv6Address("::102:304"), id="[J-04] not mapped"),
    ],
)
def test_parse_ip(text, address):
    assert parse_ip(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "1.2.3", "1.2.3.4.5", "1.2.3.256", "a", "5", " 1.2.3.4", "1.2.3.4\n", "1.2.3.4/24"),
        *("01.2.3.4", "1.2.3.04", "::1%eth0", "fe80::1%1", ":::", "1::2::3", "12345::", "::g"),
        *("\u0661.2.3.4", "[::1]", "0x7f.1.1.1", "1.2.3.4\0"),
    ],
)
def test_parse_ip_refuses(text):
    """[P-01] [J-04] [trap 8] No zone, no leading zero, nothing but ASCII, nothing around it."""
    with pytest.raises(ValueError, match=r"\Ainvalid IP address: " + re.escape(text) + r"\Z"):
        parse_ip(text)


@pytest.mark.parametrize(
    ("text", "cidr"),
    [
        pytest.param("203.0.113.9/24", IPv4Interface("203.0.113.9/24"), id="[8.2] host bits kept"),
        pytest.param("0.0.0.0/0", IPv4Interface("0.0.0.0/0"), id="[P-01] lowest length"),
        pytest.param("10.0.0.1/32", IPv4Interface("10.0.0.1/32"), id="[P-01] longest IPv4"),
        pytest.param("2001:db8::5/128", IPv6Interface("2001:db8::5/128"), id="[P-01] longest IPv6"),
        pytest.param("::ffff:1.2.3.4/120", IPv4Interface("1.2.3.4/24"), id="[trap 9] mapped"),
        pytest.param("::ffff:1.2.3.4/96", IPv4Interface("1.2.3.4/0"), id="[trap 9] mapped, all"),
    ],
)
def test_parse_cidr(text, cidr):
    parsed = parse_cidr(text)
    assert (parsed, type(parsed)) == (cidr, type(cidr))


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "/24", "10.0.0.1", "10.0.0.1/", "10.0.0.1/24/24", "10.0.0.1/x", "10.0.0.1/ 24"),
        *(
            "10.0.0.1/33",
            "10.0.0.1/0024",
            "2001:db8::/129",
            "10.0.0.1/-1",
            "10.0.0.1/+24",
            "10.0.0.1/24\n",
        ),
        *("10.0.0.1/255.255.255.0", "10.0.0.1/0.0.0.255", "fe80::1%eth0/64", "010.0.0.1/8"),
        *("10.0.0.1/\u0661", "10.0.0.1/\u00b2", "::ffff:1.2.3.4/95", "10.0.0.1/" + "9" * 5000),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_parse_cidr_refuses(text):
    """[P-01] [trap 8] Needs its `/`; no netmask, host mask or zone; the length within range."""
    with pytest.raises(ValueError, match=r"\Ainvalid CIDR address: " + re.escape(text) + r"\Z"):
        parse_cidr(text)


near_addresses = st.one_of(
    st.text(),
    st.text(alphabet="0123456789abcfF:.%/ \n", max_size=24),
    st.ip_addresses().map(str),
    st.builds("{}{}".format, st.ip_addresses(), st.text(max_size=2)),
    st.builds("::ffff:{}".format, st.ip_addresses(v=4)),
)


@quick
@given(near_addresses)
def test_any_text_as_address(text):
    """[P-01] [J-04] Accepts what the C library accepts, with its value; else a ValueError."""
    address, error = outcome(parse_ip, text)
    expected = packed(text)
    assert (error is None) == (expected is not None)
    if error:
        assert str(error) == f"invalid IP address: {text}"
    elif len(expected) == 16 and expected.startswith(b"\0" * 10 + b"\xff\xff"):
        assert address.packed == expected[12:]
    else:
        assert address.packed == expected


@quick
@given(
    st.one_of(
        near_addresses,
        st.builds("{}/{}".format, near_addresses, st.integers(-2, 140)),
        st.builds("{}/{}".format, near_addresses, st.text(alphabet="0123456789.+-_ ", max_size=5)),
    )
)
def test_any_text_as_cidr(text):
    """[P-01] An address, one slash, a decimal within the family's range; else a ValueError."""
    cidr, error = outcome(parse_cidr, text)
    head, _, tail = text.rpartition("/")
    expected = packed(head)
    mapped = expected is not None and expected[:12] == b"\0" * 10 + b"\xff\xff"
    lowest, highest = (96, 128) if mapped else (0, 8 * len(expected or b""))
    decimal = re.fullmatch("[0-9]{1,3}", tail) is not None
    allowed = expected is not None and decimal and lowest <= int(tail) <= highest
    assert (error is None) == allowed
    if error:
        assert str(error) == f"invalid CIDR address: {text}"
    else:
        assert cidr.packed == (expected[12:] if mapped else expected)
        assert cidr.network.prefixlen == int(tail) - lowest


@quick
@given(st.ip_addresses(), st.integers(0, 32))
def test_text_form_is_read_back(address, length):
    """[R-03] What is written is canonical: reading and writing it changes nothing."""
    text = addresses.encode_hook(parse_ip(str(address)))
    assert addresses.encode_hook(parse_ip(text)) == text == text.lower()
    cidr = addresses.encode_hook(parse_cidr(f"{text}/{length}"))
    assert addresses.encode_hook(parse_cidr(cidr)) == cidr == f"{text}/{length}"


def test_mapped_address_is_written_dotted():
    """[R-03] [trap 9] As IPv4, and as version 4."""
    address = parse_ip("::ffff:198.51.100.9")
    assert (addresses.encode_hook(address), address.version) == ("198.51.100.9", 4)


@pytest.mark.parametrize("text", ["10.0.0.5", "10.0.0.5/24", "::ffff:10.0.0.5/120"])
def test_strip_prefix(text):
    """[CA-07] [AR-02] `ip[/prefix]` is the address, whether the prefix is there or not."""
    assert addresses.strip_prefix(text) == IPv4Address("10.0.0.5")


@pytest.mark.parametrize("text", ["10.0.0.5/", "10.0.0.5/33", "x", ""])
def test_strip_prefix_refuses(text):
    """[P-01] A prefix that is there must be right."""
    with pytest.raises(ValueError, match=r"invalid (IP|CIDR) address: "):
        addresses.strip_prefix(text)


@pytest.mark.parametrize(("version", "text"), [(4, "0.0.0.0/0"), (6, "::/0")])
def test_default_route(version, text):
    """[8.6] `0.0.0.0/0` is the default of IPv4 and `::/0` that of IPv6."""
    route = addresses.default_route(version)
    assert (str(route), route.version) == (text, version)
    assert addresses.is_default(route)
    assert addresses.is_default(parse_cidr("10.1.2.3/0"))
    assert not addresses.is_default(parse_cidr("0.0.0.0/1"))


def test_types_are_told_apart():
    """[8.2] An address, an address with its prefix, and a subnet are three things."""
    cidr, address = parse_cidr("10.0.0.1/8"), parse_ip("::1")
    assert isinstance(address, IP)
    assert isinstance(cidr, Cidr)
    assert isinstance(cidr.network, Network)
    assert not isinstance(cidr.network, Cidr)
    assert not isinstance(address, (Cidr, Network))


def test_decode_hook_knows_two_types():
    """[P-03] Text only; another type of the program is a programming error."""
    assert addresses.decode_hook(IP, "::1") == IPv6Address("::1")
    assert addresses.decode_hook(Cidr, "::1/64") == IPv6Interface("::1/64")
    with pytest.raises(NotImplementedError):
        addresses.decode_hook(Network, "10.0.0.0/8")
    with pytest.raises(NotImplementedError):
        addresses.encode_hook("10.0.0.0/8")


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (5, "int"),
        (None, "null"),
        (True, "bool"),
        (1.5, "float"),
        ([], "array"),
        ({}, "object"),
    ],
)
def test_decode_hook_refuses_other_types(value, word):
    """[P-03] [trap 6] A number is not an address; the text is msgspec's own."""
    with pytest.raises(TypeError, match=rf"\AExpected `str`, got `{word}`\Z"):
        addresses.decode_hook(IP, value)
    assert addresses.json_type(value) == word


def test_json_type_of_text():
    """[P-03] The word for text."""
    assert addresses.json_type("x") == "str"
    assert msgspec.convert("1.2.3.4", IP, dec_hook=addresses.decode_hook) == IPv4Address("1.2.3.4")
