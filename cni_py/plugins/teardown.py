"""A teardown goes on after what fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cni_py.ipam import delegation
from cni_py.kernel.steps import step
from cni_py.spec.errors import CniError, cni_error_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call


class Teardown:
    """Steps that are all carried out; `finish` raises what failed."""

    def __init__(self) -> None:
        self._errors: list[CniError] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run the block, keep its error and go on."""
        try:
            yield
        except (CniError, OSError) as error:
            self._errors.append(cni_error_of(error))
        except Exception as error:  # noqa: BLE001 - also a defect must not keep the rest
            # It takes long to load, and is for defects alone.
            import traceback

            traceback.print_exception(error)
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


@contextmanager
def detaching(call: Call[Any]) -> Iterator[Teardown]:
    """Let the block remove the interface, then have the IPAM plugin release the address (W-G3).

    It may be given out again at once. A plugin that releases it through the interface comes first.
    Raises CniError at the end.
    """
    teardown = Teardown()
    ipam_type = call.config.ipam.type
    first = delegation.needs_interface(ipam_type)
    if first:
        with teardown.step(), step("ipam"):
            delegation.ipam_delete(call.request, ipam_type)
    yield teardown
    if ipam_type and not first:
        with teardown.step(), step("ipam"):
            delegation.ipam_delete(call.request, ipam_type)
    teardown.finish()
