"""A teardown goes on after what fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, cni_error_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Teardown:
    """Steps that are all carried out; `finish` raises what failed."""

    def __init__(self) -> None:
        self._errors: list[CniError] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run the block, keep its error and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - also a defect must not keep the rest
            self._errors.append(cni_error_of(error))

    def finish(self) -> None:
        """Raise the first error, with the others in its details."""
        if not self._errors:
            return
        first, *others = self._errors
        if not others:
            raise first
        details = "; ".join((*filter(None, [first.details]), *map(str, others)))
        raise CniError(first.code, first.msg, details) from first
