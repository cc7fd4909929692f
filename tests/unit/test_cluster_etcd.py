"""What is made of etcd's answers, without an etcd."""

from __future__ import annotations

import asyncio

import pytest
from aetcd import rpc

from cni_py.cluster.etcd_access import EtcdAccess
from cni_py.cluster.etcd_connection import Connection
from cni_py.cluster.etcd_history import History
from cni_py.cluster.etcd_messages import range_end
from cni_py.cluster.etcd_watch import Stream
from cni_py.cluster.store_errors import Compacted, Denied, Unavailable


def _header(revision=1, term=1, cluster=1):
    return rpc.ResponseHeader(revision=revision, raft_term=term, cluster_id=cluster)


@pytest.mark.parametrize(
    ("answers", "numbers"),
    [
        ([_header(5), _header(5), _header(7, 2)], [0, 0, 0]),
        ([_header(5), _header(4)], [0, 1]),
        # It has been written to since, but began anew.
        ([_header(5, 9), _header(7, 2)], [0, 1]),
        ([_header(5), _header(7, 9, 2)], [0, 1]),
        ([_header(5), _header(4), _header(6), _header(1)], [0, 1, 1, 2]),
    ],
)
def test_a_history_that_is_another_one(answers, numbers):
    history = History()
    found = []
    for header in answers:
        history.note(history.floor, header)
        found.append(history.number)
    assert found == numbers


def test_answers_that_come_in_another_order_are_of_one_history():
    history = History()
    before = history.floor
    history.note(before, _header(9, 2))
    history.note(before, _header(5, 1))
    assert (history.number, history.floor.revision, history.floor.term) == (0, 9, 2)
    history.note(history.floor, _header(8, 2))
    assert history.number == 1
    # This one was asked for in the old history.
    history.note(before, _header(1, 1))
    assert (history.number, history.floor.revision) == (1, 8)


def _message(*revisions, **values):
    response = rpc.WatchResponse(header=_header(values.pop("head", 50)), **values)
    for revision in revisions:
        event = response.events.add()
        event.kv.key, event.kv.mod_revision = b"/a", revision
    return response


def _batches(*messages, after=10):
    async def run():
        connection = Connection(EtcdAccess(("http://a:1", "http://b:1")))
        stream = Stream(connection, "/", after, 1.0)
        member = connection.member
        try:
            told = [stream._batch(message) for message in messages]
        finally:
            left.append(connection.member != member)
        return [([one.revision for one in batch.events], batch.revision) for batch in told]

    left: list[bool] = []
    return asyncio.run(run()), left[0]


def test_what_a_lagging_member_tells_again_is_left_out():
    assert _batches(_message(9, 10, 11), _message(10, 11, 12)) == ([([11], 11), ([12], 12)], False)


def test_a_revision_in_pieces_is_told_whole():
    messages = [_message(11, 12, fragment=True), _message(12, 12, fragment=True), _message(12, 13)]
    assert _batches(*messages)[0] == [([11], 11), ([], 11), ([12, 12, 12, 12, 13], 13)]


def test_only_what_etcd_tells_of_its_own_accord_is_progress():
    assert _batches(_message(head=20), _message(head=30, watch_id=-1))[0] == [([], 20), ([], 20)]
    assert _batches(_message(head=5))[0] == [([], 10)]
    pieces = [_message(11, fragment=True, head=20), _message(head=20)]
    assert _batches(*pieces)[0] == [([], 10), ([11], 11)]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (_message(compact_revision=40, canceled=True), Compacted),
        (_message(canceled=True, cancel_reason="etcdserver: permission denied"), Denied),
        (_message(canceled=True, cancel_reason="etcdserver: no leader"), Unavailable),
        (_message(canceled=True), Unavailable),
    ],
)
def test_how_a_member_ends_a_watch(message, kind):
    with pytest.raises(kind):
        _batches(message)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"/a", b"/b"), (b"/a\xff", b"/b"), (b"\xff", b"\0"), (b"", b"\0"), (b"a\xfe\xff", b"a\xff")],
)
def test_where_a_prefix_ends(prefix, end):
    assert range_end(prefix) == end
