"""Ranges of host-local: plugins.md 5.1.2."""

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.ipam.ranges import RangeConfig, describe, range_sets
from cni_py.spec.errors import CniError

quick = settings(max_examples=300, deadline=None)


def config(subnet, start=None, end=None, gateway=None):
    """A range as configured, from texts."""
    start, end, gateway = (
        None if one is None else ip_address(one) for one in (start, end, gateway)
    )
    return RangeConfig(
        subnet=ip_interface(subnet), range_start=start, range_end=end, gateway=gateway
    )


def one_range(*arguments):
    """The canonical form of one range."""
    ((run,),) = range_sets([([config(*arguments)], "ipam.ranges[0]")], "1.1.0")
    return run


def refused(*sets, cni_version="1.1.0"):
    """The refusal of range sets, each a list of argument tuples."""
    configured = [
        ([config(*one) for one in ranges], f"ipam.ranges[{index}]")
        for index, ranges in enumerate(sets)
    ]
    with pytest.raises(CniError) as caught:
        range_sets(configured, cni_version)
    assert caught.value.code == 7
    return caught.value.msg, caught.value.details


@st.composite
def range_configs(draw):
    """A valid range: any subnet with two host bits, ends and gateway or not."""
    version = draw(st.sampled_from((4, 6)))
    width = 32 if version == 4 else 128
    host_bits = draw(st.integers(2, width))
    lowest = draw(st.integers(0, (1 << (width - host_bits)) - 1)) << host_bits
    highest = lowest + (1 << host_bits) - 1
    first = draw(st.none() | st.integers(lowest, highest))
    # Without an end, a start beyond the last usable address would be refused.
    if first is not None and first == highest and version == 4:
        last = highest
    else:
        least = lowest + 1 if first is None else first
        last = draw(st.none() | st.integers(least, highest))
    kind = type(ip_address("0.0.0.0" if version == 4 else "::"))
    gateway = draw(st.none() | st.integers(0, (1 << width) - 1))
    return RangeConfig(
        subnet=ip_interface((kind(lowest), width - host_bits)),
        range_start=None if first is None else kind(first),
        range_end=None if last is None else kind(last),
        gateway=None if gateway is None else kind(gateway),
    )


@quick
@given(range_configs())
def test_canonical_form(configured):
    """[5.1.2] What is given stays; what is not follows from the subnet."""
    ((run,),) = range_sets([([configured], "ipam")], "1.1.0")
    subnet = configured.subnet.network
    highest = int(subnet.broadcast_address) - (subnet.version == 4)
    start, end, gateway = configured.range_start, configured.range_end, configured.gateway
    assert run.first == (int(subnet.network_address) + 1 if start is None else int(start))
    assert run.last == (highest if end is None else int(end))
    assert run.gateway == (subnet.network_address + 1 if gateway is None else gateway)
    assert run.subnet == subnet
    assert run.first <= run.last
    assert run.address(0) in subnet
    assert run.address(run.size - 1) in subnet
    assert str(run) == f"{run.address(0)}-{run.address(run.size - 1)}"


@quick
@given(range_configs(), st.data())
def test_positions_and_addresses_are_inverse(configured, data):
    ((run,),) = range_sets([([configured], "ipam")], "1.1.0")
    position = data.draw(st.integers(0, run.size - 1))
    assert run.position(run.address(position)) == position
    for outside in (run.first - 1, run.last + 1):
        if 0 <= outside < 1 << run.subnet.max_prefixlen:
            assert run.position(type(run.gateway)(outside)) is None
    assert run.position(ip_address("::5" if run.version == 4 else "0.0.0.5")) is None


small = st.builds(
    lambda net, ends: config(
        f"10.0.{net}.0/24", f"10.0.{net}.{min(ends)}", f"10.0.{net}.{max(ends)}"
    ),
    st.integers(0, 1),
    st.tuples(st.integers(0, 15), st.integers(0, 15)),
)


def addresses(configured):
    start, end = int(configured.range_start), int(configured.range_end)
    return set(range(start, end + 1))


@quick
@given(small, small, st.booleans())
def test_overlap_is_symmetric_and_means_a_common_address(one, other, in_one_set):
    """[5.1.2] Neither the ranges of a set nor those of two sets have an address in common."""

    def is_refused(first, second):
        sets = [([first, second], "a")] if in_one_set else [([first], "a"), ([second], "b")]
        try:
            range_sets(sets, "1.1.0")
        except CniError as error:
            return "overlap" in error.msg
        return False

    common = bool(addresses(one) & addresses(other))
    assert is_refused(one, other) == common
    assert is_refused(other, one) == common


def test_the_whole_of_ipv4_and_its_first_address():
    """[5.1.2] An explicit end may be the network or the broadcast address, also 0.0.0.0."""
    assert str(one_range("0.0.0.0/0")) == "0.0.0.1-255.255.255.254"
    assert str(one_range("0.0.0.0/8", "0.0.0.0", "0.0.0.0")) == "0.0.0.0-0.0.0.0"
    assert str(one_range("10.0.0.0/24", "10.0.0.255", "10.0.0.255")) == "10.0.0.255-10.0.0.255"
    assert str(one_range("::/64", "::", "::")) == "::-::"


def test_ipv6_has_no_broadcast_address():
    """[5.1.2] The last address of an IPv6 range is all ones."""
    assert str(one_range("fd00::/126")) == "fd00::1-fd00::3"


def test_a_set_is_described_by_its_runs():
    """[5.1.4] As the message of exhaustion shows it."""
    ranges = [config("10.0.0.0/30"), config("10.0.1.0/30")]
    (one,) = range_sets([(ranges, "ipam.ranges[0]")], "1.1.0")
    assert describe(one) == "10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2"


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("10.0.0.0/24", "10.0.1.1"), "RangeStart"),
        (("10.0.0.0/24", "fd00::1"), "RangeStart"),
        (("10.0.0.0/24", None, "9.255.255.255"), "RangeEnd"),
        (("fd00::/64", None, "10.0.0.1"), "RangeEnd"),
    ],
)
def test_an_end_outside_the_subnet(arguments, key):
    msg, details = refused([arguments])
    value = next(one for one in arguments[1:] if one)
    assert msg == f"invalid range set 0: {key} {value} not in network {arguments[0]}"
    assert details == f"ipam.ranges[0][0].r{key[1:]}"


@pytest.mark.parametrize(
    ("arguments", "blamed"),
    [
        (("10.0.0.0/24", "10.0.0.9", "10.0.0.8"), "RangeStart 10.0.0.9"),
        (("10.0.0.0/24", None, "10.0.0.0"), "RangeEnd 10.0.0.0"),
        (("0.0.0.0/8", None, "0.0.0.0"), "RangeEnd 0.0.0.0"),
        (("10.0.0.0/24", "10.0.0.255"), "RangeStart 10.0.0.255"),
    ],
)
def test_an_end_before_the_start(arguments, blamed):
    msg, details = refused([arguments])
    assert msg == f"invalid range set 0: {blamed} not in network {arguments[0]}"
    assert details == "ipam.ranges[0][0] ends before it starts"


@pytest.mark.parametrize("cni_version", ["0.1.0", "0.2.0"])
def test_one_set_a_family_before_030(cni_version):
    """[5.1.2] Results before 0.3.0 have one address a family; one of each fits."""
    two = ([("10.0.0.0/24",)], [("10.0.1.0/24",)])
    msg, details = refused(*two, cni_version=cni_version)
    expected = f"CNI version {cni_version} does not support more than 1 address per family"
    assert (msg, details) == (expected, "use cniVersion 0.3.0 or newer")
    both = [([config("10.0.0.0/24")], "a"), ([config("fd00::/64")], "b")]
    assert len(range_sets(both, cni_version)) == 2


def test_the_second_set_is_named_when_it_is_wrong():
    msg, details = refused([("10.0.0.0/24",)], [("fd00::/64",), ("10.1.0.0/24",)])
    assert msg == "invalid range set 1: mixed address families"
    assert details == "ipam.ranges[1] has IPv4 and IPv6 subnets: give each its own range set"
