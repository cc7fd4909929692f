"""`Backend` in the network's configuration, as flannel writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T", bound="Settings")


class Settings(msgspec.Struct, frozen=True, rename="lower"):
    """A backend's keys. As for flannel, the case of letters does not matter, nor do other keys."""


def settings(kind: type[T], given: Mapping[str, Any]) -> T:
    """The keys of `given` as the type has them. Raises CniError 7 naming what is wrong."""
    lowered = {str(key).lower(): value for key, value in given.items()}
    try:
        return msgspec.convert(lowered, kind)
    except msgspec.ValidationError as error:
        msg = f"the network's Backend cannot be used: {error}"
        raise CniError(Code.INVALID_CONFIG, msg, key="Backend") from error
