"""Where files go: onto this machine, or into an image whose root is a folder."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

_MOST_LINKS = 40


class Root(NamedTuple):
    """The file system that is installed into. `folder` is an absolute path without links."""

    folder: str = "/"

    @classmethod
    def at(cls, folder: str) -> Root:
        """The root that a person names."""
        return cls(os.path.realpath(folder))

    @property
    def is_own(self) -> bool:
        """Whether it is this machine's own."""
        return self.folder == "/"

    def outside(self, path: str) -> str:
        """Where the file is that programs inside know by `path`.

        Links on the way lead where they will lead inside, and never out of the image; the last
        part is not followed. Raises OSError.
        """
        if self.is_own:
            return path
        found, links = self.folder, 0
        left = path.split("/")[::-1]
        while left:
            part = left.pop()
            if part == "..":
                found = found if found == self.folder else os.path.dirname(found)
            elif part not in ("", "."):
                here = os.path.join(found, part)
                if left and os.path.islink(here):
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    target = os.readlink(here)
                    found = self.folder if target.startswith("/") else found
                    left += target.split("/")[::-1]
                else:
                    found = here
        return found

    def inside(self, path: str) -> str:
        """What a file is called inside; one that is not below the root has the same path there."""
        if self.is_own or not (path + "/").startswith(f"{self.folder}/"):
            return path
        return path[len(self.folder) :] or "/"

    def followed(self, path: str) -> str:
        """The same with the last part followed too, as far as links lead. Raises OSError."""
        for _ in range(_MOST_LINKS):
            place = self.outside(path)
            if not os.path.islink(place):
                return place
            path = os.path.join(os.path.dirname(path), os.readlink(place))
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
