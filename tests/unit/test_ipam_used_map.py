"""UsedMap against a set of integers as the model."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cni_py.ipam.used_map import MAX_POSITIONS, UsedMap
from cni_py.kernel.errors import KernelError

# More than one chunk of 8 KiB, and not a whole number of bytes.
SIZE = 8 * 8192 + 13
positions = st.integers(0, SIZE - 1) | st.sampled_from([0, 7, 8, 65535, 65536, SIZE - 1])


class UsedMapModel(RuleBasedStateMachine):
    """Bits are set, cleared and replaced; the first clear one is looked for anywhere."""

    def __init__(self):
        super().__init__()
        self.folder = TemporaryDirectory()
        self.used = UsedMap(f"{self.folder.name}/map", SIZE)
        self.taken = set()

    @initialize(taken=st.sets(positions, max_size=20), filled=st.integers(0, SIZE))
    def start(self, taken, filled):
        """Long runs of taken addresses are what a search has to cross."""
        self.taken = taken | set(range(filled))
        self.used.rewrite(self.taken)

    @rule(position=positions, taken=st.booleans())
    def mark(self, position, taken):
        self.used.mark(position, taken=taken)
        (self.taken.add if taken else self.taken.discard)(position)

    @rule(taken=st.sets(positions, max_size=20))
    def rewrite(self, taken):
        self.used.rewrite(taken)
        self.taken = set(taken)

    @rule(start=positions, end=st.integers(0, SIZE))
    def search(self, start, end):
        expected = next((one for one in range(start, end) if one not in self.taken), None)
        assert self.used.next_free(start, end) == expected

    @rule()
    def another_process_reads_the_same(self):
        self.used = UsedMap(f"{self.folder.name}/map", SIZE)

    @invariant()
    def only_the_map_is_in_the_folder(self):
        assert [one.name for one in Path(self.folder.name).iterdir()] in ([], ["map"])

    def teardown(self):
        self.folder.cleanup()


TestUsedMapModel = UsedMapModel.TestCase
TestUsedMapModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.data())
def test_a_full_range_has_no_free_position(size, data):
    with TemporaryDirectory() as folder:
        used = UsedMap(f"{folder}/map", size)
        used.rewrite(range(size))
        assert used.next_free(0, size) is None
        position = data.draw(st.integers(0, size - 1))
        used.mark(position, taken=False)
        assert used.next_free(0, size) == position


def test_without_a_file_everything_is_free(tmp_path):
    used = UsedMap(str(tmp_path / "map"), 8)
    assert not used.exists
    assert used.next_free(3, 8) == 3
    assert used.next_free(8, 8) is None
    used.mark(3, taken=True)
    assert used.exists
    assert used.next_free(3, 8) == 4


@pytest.mark.parametrize("size", [MAX_POSITIONS + 5, 1 << 64])
def test_positions_beyond_the_largest_map_are_tried_and_not_remembered(tmp_path, size):
    """A /64 has 2^64 addresses: the file stays small and the search does not end early."""
    used = UsedMap(str(tmp_path / "map"), size)
    used.rewrite([MAX_POSITIONS, size - 1])
    used.mark(MAX_POSITIONS + 1, taken=True)
    assert (tmp_path / "map").stat().st_size == 0
    assert used.next_free(MAX_POSITIONS, size) == MAX_POSITIONS
    assert used.next_free(MAX_POSITIONS + 1, size) == MAX_POSITIONS + 1
    assert used.next_free(size, size) is None
    (tmp_path / "map").write_bytes(b"\xff" * (MAX_POSITIONS // 8))
    assert used.next_free(0, size) == MAX_POSITIONS
    assert used.next_free(0, MAX_POSITIONS) is None


def test_files_have_mode_0600(tmp_path):
    used = UsedMap(str(tmp_path / "map"), 8)
    used.mark(1, taken=True)
    assert (tmp_path / "map").stat().st_mode & 0o777 == 0o600


def test_a_map_that_cannot_be_read_is_an_error_of_the_kernel(tmp_path):
    (tmp_path / "map").mkdir()
    with pytest.raises(KernelError, match="Is a directory"):
        UsedMap(str(tmp_path / "map"), 8).next_free(0, 8)
