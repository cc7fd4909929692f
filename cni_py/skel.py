"""One executable's life: environment and stdin in, a result or an error out (spec.md 2).

Only what a verb needs is imported: VERSION and a refused environment touch neither the plugin nor
the parser.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import __version__
from .kernel import interruption, own_folders
from .spec import versions
from .spec.environment import VERBS, read_environment
from .spec.errors import CniError, Code, cni_error_of
from .spec.limits import MOST_INPUT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from .spec.call import Plugin, Request
    from .spec.collection import Collection
    from .spec.environment import Environment
    from .spec.results import Result


class Executable(NamedTuple):
    """Where a plugin's code is, and the oldest protocol version that it speaks."""

    module: str
    since: str = versions.ALL[0]

    @property
    def versions(self) -> tuple[str, ...]:
        """The protocol versions of the plugin, oldest first."""
        return versions.starting_from(self.since)


EXECUTABLES: Mapping[str, Executable] = {
    "bandwidth": Executable("cni_py.plugins.bandwidth", "0.3.0"),
    "bridge": Executable("cni_py.plugins.bridge"),
    "cluster": Executable("cni_py.ipam.cluster"),
    "dhcp": Executable("cni_py.ipam.dhcp"),
    "dns": Executable("cni_py.plugins.dns"),
    "dnsname": Executable("cni_py.plugins.dns"),
    "dummy": Executable("cni_py.plugins.dummy"),
    "firewall": Executable("cni_py.plugins.firewall"),
    "flannel": Executable("cni_py.plugins.overlay"),
    "host-device": Executable("cni_py.plugins.host_device"),
    "host-local": Executable("cni_py.ipam.host_local"),
    "ipvlan": Executable("cni_py.plugins.ipvlan"),
    "loopback": Executable("cni_py.plugins.loopback"),
    "macvlan": Executable("cni_py.plugins.macvlan"),
    "overlay": Executable("cni_py.plugins.overlay"),
    "portmap": Executable("cni_py.plugins.portmap"),
    "ptp": Executable("cni_py.plugins.ptp"),
    "sbr": Executable("cni_py.plugins.sbr"),
    "services": Executable("cni_py.plugins.services"),
    "static": Executable("cni_py.ipam.static"),
    "tap": Executable("cni_py.plugins.tap"),
    "tuning": Executable("cni_py.plugins.tuning"),
    "vlan": Executable("cni_py.plugins.vlan"),
    "vrf": Executable("cni_py.plugins.vrf", "0.3.1"),
}

_STDIN, _STDOUT, _STDERR = range(3)
_CLOSED = -1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# The release of the reference plugins whose keys and files these have (docs/compatibility.md).
_REFERENCE_VERSION = "1.9.1"
_COERCED_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8")
_INDENT = 4
_CHUNK_BYTES = 64 * 1024


def main(name: str) -> int:
    """Run the plugin `name` as a process of its own; returns the exit status."""
    output = Output(_claim_stdout())
    own_folders.limit_umask()
    for number in _SIGNALS:
        signal.signal(number, interrupted)
    status = run(name, _environ(), _STDIN, output)
    # The interpreter takes handlers out before it ends, and the answer has been given.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    return status


class Output:
    """Where the one document goes, and what is known of the call afterwards.

    `code` is the error's once there is one, else -1; `network` is empty until it has been read;
    `begun` tells whether something has been written.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.code = -1
        self.network = ""
        self.begun = False

    def write(self, data: bytes) -> None:
        """Write all of it. Raises OSError, and Interrupted before something has to wait.

        Pieces of PIPE_BUF bytes once there is room for them: then it is known what was written.
        """
        if self._fd == _CLOSED:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        while data:
            interruption.wait_writable(self._fd)
            self.begun = True
            data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]


def run(name: str, environ: Mapping[str, str], stdin: int, output: Output) -> int:
    """Carry out one call: read `stdin`, write one JSON document at most to `output`.

    Returns the exit status. Nothing is raised: what is not a CniError is reported as code 999, with
    the traceback on stderr.
    """
    version = versions.NEWEST
    try:
        if not environ.get("CNI_COMMAND"):
            return _about(name)
        environment = read_environment(environ)
        if environment.verb == "VERSION":
            output.write(_version_document(name))
            return 0
        request = _read(environment, environ, stdin)
        output.network = request.network
        if environment.verb not in VERBS:
            msg = f"unknown CNI_COMMAND: {environment.verb}"
            raise CniError(Code.INVALID_ENVIRONMENT, msg, f"one of {', '.join(sorted(VERBS))}")
        request = _gated(name, request)
        version = request.cni_version
        _carry_out(name, request, output)
    except BaseException as error:  # noqa: BLE001 - every failure becomes the one document
        _report(error, version, output)
        return 1
    return 0


def _claim_stdout() -> int:
    """Keep stdout for the one document; whatever else prints goes to stderr (O-06).

    No file opened later may be taken for one of the two where they are closed.
    """
    if not _is_open(_STDERR):
        null = os.open(os.devnull, os.O_RDWR)
        if null != _STDERR:
            os.dup2(null, _STDERR)
            os.close(null)
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115 - as long as the process
    # Where it is closed the first write says so, and an ADD undoes itself.
    output = _CLOSED
    if _is_open(_STDOUT):
        output = fcntl.fcntl(_STDOUT, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    os.dup2(_STDERR, _STDOUT)
    return output


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _environ() -> dict[str, str]:
    """The environment as the runtime gave it, which is what a delegate gets (DG-02).

    In the C locale Python sets an LC_CTYPE of its own (PEP 538).
    """
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") in _COERCED_LOCALES:
        del environ["LC_CTYPE"]
        with open("/proc/self/environ", "rb") as file:
            given = [one.partition(b"=") for one in file.read().split(b"\0")]
        environ.update(
            (os.fsdecode(key), os.fsdecode(value)) for key, _, value in given if key == b"LC_CTYPE"
        )
    return environ


def interrupted(number: int, _frame: FrameType | None) -> None:
    """The runtime gives up: the call is left where it can be, so that an ADD undoes itself."""
    interruption.note(f"interrupted by {signal.Signals(number).name}")


def _about(name: str) -> int:
    """What the executable is, for a person who runs it (O-02)."""
    listed = ", ".join(EXECUTABLES[name].versions)
    # nerdctl reads this line of firewall's as a semantic version: docs/decisions/0040-versions.md.
    own = __version__.replace("+", ".")
    text = f"CNI {name} plugin v{_REFERENCE_VERSION}+cni-py.{own}\n"
    text += f"CNI protocol versions supported: {listed}\n"
    os.write(_STDERR, text.encode())
    return 0


def _version_document(name: str) -> bytes:
    """VERSION's answer: one line (VR-02, O-05)."""
    supported = list(EXECUTABLES[name].versions)
    document = {"cniVersion": versions.NEWEST, "supportedVersions": supported}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _read(environment: Environment, environ: Mapping[str, str], stdin: int) -> Request:
    from .spec.call import read_request

    data = bytearray()
    try:
        with interruption.waiting():
            while len(data) <= MOST_INPUT_BYTES and (more := os.read(stdin, _CHUNK_BYTES)):
                data += more
    except OSError as error:
        msg = f"error reading from stdin: {error.strerror}"
        raise CniError(Code.IO_FAILURE, msg) from error
    if len(data) > MOST_INPUT_BYTES:
        msg = f"the network configuration has more than {MOST_INPUT_BYTES} bytes"
        raise CniError(Code.IO_FAILURE, msg, "it is read from stdin until its end")
    return read_request(environment, environ, bytes(data))


def _gated(name: str, request: Request) -> Request:
    from .spec.call import gate_version

    return gate_version(request, EXECUTABLES[name].versions)


def _carry_out(name: str, request: Request, output: Output) -> None:
    from .kernel.lock import alone
    from .spec.call import typed_call

    own_folders.require_own()
    plugin = cast("Plugin", import_module(EXECUTABLES[name].module))
    verb = request.environment.verb
    if verb == "ADD":
        _refuse_own_netns(request)
        _finish_deferred(request)
        call = typed_call(request, plugin.Config)
        with alone(name, request.attachment), call.scope:
            _print_result(plugin.add(call), request.cni_version, output)
    elif verb == "DEL":
        _delete_alone(name, plugin, request)
    elif verb == "CHECK":
        plugin.check(typed_call(request, plugin.Config))
    elif verb == "STATUS":
        plugin.status(typed_call(request, plugin.Config))
    else:
        _collect(name, request)


class Carried(NamedTuple):
    """What became of a deferred DEL, as far as it is known; with `error` it is tried again."""

    plugin: str = ""
    container: str = ""
    network: str = ""
    error: CniError | None = None


def carry_out_deferred(name: str) -> Carried:
    """Carry out a DEL that a launcher has written down, and forget it where it succeeded.

    One that is refused before it has begun is set aside: no retry mends it. Nothing is raised.
    """
    from .kernel import deferred

    carried = Carried()
    try:
        with deferred.claimed(name) as one:
            if one is None:
                return carried
            container = one.environ.get("CNI_CONTAINERID", "")
            carried = Carried(one.plugin, container)
            if one.elsewhere:
                msg = f"the deferred DEL cannot be carried out here: {one.elsewhere}"
                raise CniError(Code.TRY_AGAIN_LATER, msg)
            with deferred.in_place(one) as environ:
                try:
                    plugin, request = _readable(one.plugin, environ, one.stdin)
                except CniError as error:
                    deferred.set_aside(name, str(error))
                    return carried
                carried = carried._replace(network=request.network)
                _delete_alone(one.plugin, plugin, request)
            deferred.forget(name)
    except BaseException as error:  # noqa: BLE001 - the caller goes on with the next one
        return carried._replace(error=_told(error))
    return carried


def _readable(name: str, environ: Mapping[str, str], stdin: bytes) -> tuple[Plugin, Request]:
    """The plugin and its request. Raises CniError for what DEL refuses."""
    from .spec.call import read_request, typed_call

    if name not in EXECUTABLES:
        raise CniError(Code.INVALID_ENVIRONMENT, f'there is no plugin "{name}"')
    plugin = cast("Plugin", import_module(EXECUTABLES[name].module))
    request = _gated(name, read_request(read_environment(environ), environ, stdin))
    typed_call(request, plugin.DelConfig)
    return plugin, request


def _finish_deferred(request: Request) -> None:
    """An ADD comes after the DELs of the attachment that have been deferred. Raises CniError 11."""
    from .kernel import deferred

    environment = request.environment
    for name in deferred.pending_of(environment.container_id, environment.ifname):
        error = carry_out_deferred(name).error
        if error is not None:
            msg = f"an earlier DEL of the attachment has been deferred and fails: {error.msg}"
            raise CniError(Code.TRY_AGAIN_LATER, msg, error.details) from error


def _delete_alone(name: str, plugin: Plugin, request: Request) -> None:
    from .kernel.lock import alone

    with alone(name, request.attachment):
        _delete(plugin, request)


def _print_result(result: Result, version: str, output: Output) -> None:
    """Print in the configuration's version; what cannot be reported is undone (W-G8)."""
    from msgspec import json as fast_json

    from .spec.conversion import to_wire

    document = to_wire(result, version)
    try:
        output.write(fast_json.format(fast_json.encode(document), indent=_INDENT))
    except OSError as error:
        msg = f"error writing the result to stdout: {error.strerror}"
        raise CniError(Code.IO_FAILURE, msg) from error


def _teardown(plugin: Plugin, request: Request) -> None:
    from .spec.call import typed_call

    request = request._replace(environment=request.environment._replace(verb="DEL"))
    plugin.delete(typed_call(request, plugin.DelConfig))


def _delete(plugin: Plugin, request: Request) -> None:
    """A CNI_NETNS that has become the plugin's own counts as gone, and code 8 says so (N-06).

    A process id that was given out again leads there: nothing in it is the container's. One that
    cannot be opened is reported by the plugin, after what it could do.
    """
    try:
        is_own = _is_own_netns(request)
    except CniError:
        is_own = False
    if not is_own:
        _teardown(plugin, request)
        return
    environment = request.environment._replace(netns="")
    _teardown(plugin, request._replace(environment=environment))
    raise _own_netns_error(request)


def _refuse_own_netns(request: Request) -> None:
    if _is_own_netns(request):
        raise _own_netns_error(request)


def _is_own_netns(request: Request) -> bool:
    from .kernel.netns import open_netns, own_identity

    if request.environment.may_share_netns or not request.environment.netns:
        return False
    opened = open_netns(request.environment.netns)
    if opened is None:
        return False
    with opened:
        return opened.identity == own_identity()


def _own_netns_error(request: Request) -> CniError:
    msg = "plugin's netns and netns from CNI_NETNS should not be the same"
    return CniError(Code.INVALID_NETNS, msg, f"CNI_NETNS is {request.environment.netns}")


def collect(name: str, request: Request, collection: Collection) -> None:
    """Have the plugin `name` take away what the collection takes. Raises CniError, OSError."""
    from .kernel import lock
    from .spec.call import typed_call

    own_folders.require_own()
    plugin = cast("Plugin", import_module(EXECUTABLES[name].module))
    plugin.gc(typed_call(request, plugin.DelConfig), collection)
    lock.collect(name, collection)


def _collect(name: str, request: Request) -> None:
    """What goes is told on stderr, with the reason."""
    from .spec.call import valid_attachments
    from .spec.collection import Collection

    collection = Collection(request.network, valid_attachments(request))
    try:
        collect(name, request, collection)
    finally:
        for line in collection.lines():
            sys.stderr.write(f"cni-py: GC: {line}\n")


def _told(error: BaseException) -> CniError:
    """The CNI error; a defect's traceback goes to stderr."""
    reported = cni_error_of(error)
    known = isinstance(error, (CniError, interruption.Interrupted))
    # What the disk or a shortage refuses is nobody's mistake.
    known = known or (isinstance(error, OSError) and reported.code != Code.INTERNAL)
    if not known:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    return reported


def _report(error: BaseException, version: str, output: Output) -> None:
    """Print the CNI error."""
    reported = _told(error)
    output.code = reported.code
    document: dict[str, Any] = {"cniVersion": version, "code": reported.code, "msg": reported.msg}
    if reported.details:
        document["details"] = reported.details
    text = json.dumps(document, indent=_INDENT)
    try:
        if output.begun:
            raise OSError(errno.EIO, "another document has begun")
        with interruption.shielded():
            output.write(text.encode())
    except OSError as unwritten:
        sys.stderr.write(f"cni-py: cannot write the error to stdout: {unwritten}\n{text}\n")
