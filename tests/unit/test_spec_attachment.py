"""An attachment's identity and derived names: spec.md GE-02, plugins.md H-05 and 2.13."""

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.spec.attachment import Attachment, key_in, network_key, read_label
from cni_py.spec.names import validate_ifname

quick = settings(max_examples=150, deadline=None)

ONE = Attachment("unit-test", "one", "eth0")
ifnames = st.binary(min_size=1, max_size=15).map(os.fsdecode)
attachments = st.builds(Attachment, st.text(alphabet="ab.-1", min_size=1), st.just("c1"), ifnames)


def test_key_of_the_reference():
    """[H-05] The test vector of the reference."""
    assert ONE.key == "6fd94d501e58f0aa-287fc69eff0574a2"
    assert network_key("unit-test") == "6fd94d501e58f0aa"


@pytest.mark.parametrize("field", Attachment._fields)
def test_all_three_names_identify(field):
    """[GE-02] [G-09] Network, container id and interface name: each makes another attachment."""
    other = ONE._replace(**{field: "other"})
    assert other != ONE
    assert other.key != ONE.key
    assert other.host_ifname != ONE.host_ifname


def test_names_are_not_run_together():
    """[GE-02] `a` + `bc` is not `ab` + `c`."""
    left, right = Attachment("a", "bc", "eth0"), Attachment("ab", "c", "eth0")
    assert left.host_ifname != right.host_ifname
    assert left.key != right.key


def test_key_begins_with_the_network():
    """[H-05] [G-09] What belongs to one network is found by the first half of the key."""
    assert ONE.key.startswith(network_key(ONE.network) + "-")
    assert ONE._replace(container_id="two").key.startswith(network_key("unit-test"))


def test_label_of_the_reference():
    """[H-05] The comment that the reference writes beside a masquerade rule."""
    expected = "6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: one"
    assert ONE.label(128) == expected


def test_label_has_no_quotes():
    """[H-05] Double quotes are taken out of the parts, and not out of the key's input."""
    quoted = Attachment("unit-test", "one", 'e"th"0')
    assert quoted.label(128) == f"{quoted.key}, net: unit-test, if: eth0, id: one"
    assert quoted.key != ONE.key


def test_label_is_cut():
    """[H-05] To the limit in bytes; the key survives."""
    long = Attachment("unit-test", "c" * 300, "eth0")
    assert len(long.label(128)) == 128
    assert long.label(128).startswith(long.key)


def test_label_is_cut_between_characters():
    """[H-05] A character that the limit splits is left out."""
    attachment = Attachment("n", "c", "\u00e9" * 7)
    start = len(f"{attachment.key}, net: n, if: ")
    assert attachment.label(start + 3).endswith("if: \u00e9")


@quick
@given(attachments)
def test_host_ifname_is_an_interface_name(attachment):
    """[5.3] Always 15 bytes that the kernel accepts, the same for the same attachment."""
    assert re.fullmatch("veth[0-9a-f]{11}", attachment.host_ifname)
    assert validate_ifname(attachment.host_ifname) is None
    assert attachment.host_ifname == Attachment(*attachment).host_ifname


@quick
@given(attachments, st.integers(33, 200))
def test_label_of_any_name(attachment, limit):
    """[5.3] [H-05] Also for an interface name that is not UTF-8: valid text within the limit."""
    label = attachment.label(limit)
    assert len(label.encode()) <= limit
    assert label.startswith(attachment.key)
    assert '"' not in label


@quick
@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_.@-]{1,15}", fullmatch=True),
    st.sampled_from(["", "has: , ", "has: hairpin nftables, "]),
)
def test_a_label_is_read_back_or_known_to_be_cut_off(network, container, ifname, note):
    attachment = Attachment(network, container, ifname)
    assert read_label(attachment.label(254, note)) == attachment
    assert key_in(attachment.label(254, note)) == attachment.key
    cut = attachment.label(len(attachment.label(254, note)) - 1, note)
    assert read_label(cut) is None
    assert key_in(cut) == attachment.key


@pytest.mark.parametrize("text", ["", "eth0", "8e48f37d5de60467", "x, net: a, if: b, id: c"])
def test_other_aliases_are_no_labels(text):
    assert read_label(text) is None
    assert key_in(text) == ""
