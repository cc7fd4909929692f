"""One furnished host for all tests of a module that only look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.furnished import Furnished, furnished

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def looked_at() -> Iterator[Furnished]:
    """A host that no test changes."""
    with furnished() as made:
        yield made
