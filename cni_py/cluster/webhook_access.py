"""Who this node is to a controller: the files in a folder of this node, read anew as they change.

    token        what follows `Authorization: Bearer`, one line
    ca.pem       who signed the controller's certificate; without it whom the system trusts
    client.pem   this node's certificate, and
    client.key   its key

They are not named by the network's configuration: whoever writes that could have any file sent.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from .exchange import Place

FOLDER = "/etc/cni-py/webhook"
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{1,4096}=*")
_MOST_BYTES = 8192
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Access:
    """The files of a folder, as one controller needs them."""

    def __init__(self, folder: str, place: Place) -> None:
        self._folder, self._place = Path(folder), place
        self._seen: tuple[object, ...] = ()
        self._tls: ssl.SSLContext | None = None

    def headers(self) -> dict[str, str]:
        """With the token, if there is one. Raises CniError 50 if others could read it."""
        token = self._token()
        if not token:
            return {}
        if not self._place.is_tls and not self._place.is_loopback:
            msg = f"the token is not sent to {self._place}: everybody on the way could read it"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "the URL has to begin with https://")
        return {"Authorization": f"Bearer {token}"}

    def tls(self) -> ssl.SSLContext | None:
        """For https, else None. Raises CniError 50 for files that cannot be used."""
        if not self._place.is_tls:
            return None
        ca, certificate, key = (
            self._folder / one for one in ("ca.pem", "client.pem", "client.key")
        )
        seen = tuple(_version(one) for one in (ca, certificate, key))
        if self._tls is None or seen != self._seen:
            try:
                context = ssl.create_default_context(cafile=str(ca) if seen[0] else None)
                if seen[1] or seen[2]:
                    _require_private(key)
                    context.load_cert_chain(certificate, key, password=_no_password)
            except (OSError, ValueError) as error:
                msg = f"the certificates in {self._folder} cannot be used: {error}"
                details = "ca.pem, client.pem and client.key are in PEM, without a passphrase"
                raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details) from None
            self._tls, self._seen = context, seen
        return self._tls

    def _token(self) -> str:
        path = self._folder / "token"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, f"{path}: {error.strerror}") from error
        with open(descriptor, "rb") as file:
            _require_private(path, os.fstat(descriptor))
            text = file.read(_MOST_BYTES).strip()
        if not _TOKEN.fullmatch(text):
            msg = f"{path} has no token: one line of letters, digits and any of - . _ ~ + / ="
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg)
        return text.decode()


def _require_private(path: Path, status: os.stat_result | None = None) -> None:
    """Raises CniError 50 if others can read the file, OSError if it is not there."""
    status = status or path.stat()
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "is no file"
    elif status.st_uid not in (0, os.geteuid()):
        problem = f"belongs to user {status.st_uid}"
    elif status.st_mode & _OTHERS:
        problem = f"can be read by others: its mode is {stat.S_IMODE(status.st_mode):04o}"
    if problem:
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, f"{path} {problem}", f"chmod 600 {path}")


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _no_password() -> str:
    # OpenSSL would ask the terminal.
    return ""
