"""What the kubelet says to a container runtime: calls of the CRI (runtime.v1) over gRPC.

    with Cri(containerd.address) as cri:
        web = cri.run(Pod("web", ports=(Port(8080, 80),)))
        cri.start(web, "httpd", "-f", "-h", "/www")
        cri.addresses(web)
        cri.stop(web)
        cri.remove(web)

The kubelet stops a pod before it removes it, and does both again until they succeed.
"""

from __future__ import annotations

import itertools
import os
import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

IMAGE = "docker.io/library/cni-py-test:latest"
NAMESPACE = "default"

# A daemon that comes back is met at once: by itself gRPC waits longer from attempt to attempt.
_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100))
# What it says while it looks for the pods that there are.
_STARTING = "server is not initialized yet"
_messages, _services = grpc.protos_and_services("tools/cri.proto")
_numbers = itertools.count(1)


class CriError(Exception):
    """A call has failed; the text is the runtime's, which the kubelet puts among a pod's events."""


@dataclass(frozen=True)
class Port:
    """A hostPort."""

    host: int
    container: int
    protocol: str = "TCP"
    address: str = ""


@dataclass(frozen=True)
class Pod:
    """What the kubelet knows of a pod. The uid is of one life: a pod made anew has another."""

    name: str
    ports: tuple[Port, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    host_network: bool = False
    uid: str = field(default_factory=lambda: f"{os.getpid()}-{next(_numbers)}")

    def config(self) -> Any:
        """The message PodSandboxConfig."""
        mode = "NODE" if self.host_network else "POD"
        ports = [
            {
                "protocol": one.protocol,
                "container_port": one.container,
                "host_port": one.host,
                "host_ip": one.address,
            }
            for one in self.ports
        ]
        return _messages.PodSandboxConfig(
            metadata={"name": self.name, "uid": self.uid, "namespace": NAMESPACE},
            hostname="" if self.host_network else self.name,
            port_mappings=ports,
            annotations=self.annotations,
            linux={"security_context": {"namespace_options": {"network": mode}}},
        )


@dataclass(frozen=True)
class Ended:
    """How one of many calls ended: the answer, or the text of the error."""

    answer: str
    error: str
    milliseconds: float


@dataclass(frozen=True)
class Condition:
    """A condition of the runtime, of which the kubelet makes the node's."""

    holds: bool
    reason: str
    message: str


class Cri:
    """A connection to a runtime's socket."""

    def __init__(self, socket: Path, *, seconds: float = 240) -> None:
        """`seconds` is what each call may take; the kubelet gives RunPodSandbox four minutes."""
        self._seconds = seconds
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._runtime = _services.RuntimeServiceStub(self._channel)
        self._pods: dict[str, Pod] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._channel.close()

    def network(self) -> Condition:
        """The condition NetworkReady."""
        conditions = self._call(self._runtime.Status, _messages.StatusRequest()).status.conditions
        (one,) = [one for one in conditions if one.type == "NetworkReady"]
        return Condition(one.status, one.reason, one.message)

    def run(self, pod: Pod) -> str:
        """Start a pod's sandbox; returns its id."""
        request = _messages.RunPodSandboxRequest(config=pod.config())
        sandbox = str(self._call(self._runtime.RunPodSandbox, request).pod_sandbox_id)
        self._pods[sandbox] = pod
        return sandbox

    def start(self, sandbox: str, *command: str) -> str:
        """Start a container in a sandbox, called after the command; returns its id."""
        request = _messages.CreateContainerRequest(
            pod_sandbox_id=sandbox,
            config={
                "metadata": {"name": command[0]},
                "image": {"image": IMAGE},
                "command": command,
            },
            sandbox_config=self._pods[sandbox].config(),
        )
        container = str(self._call(self._runtime.CreateContainer, request).container_id)
        started = _messages.StartContainerRequest(container_id=container)
        self._call(self._runtime.StartContainer, started)
        return container

    def exec(self, container: str, *command: str) -> str:
        """Run a command in a container, as an exec probe does; returns what it prints."""
        request = _messages.ExecSyncRequest(container_id=container, cmd=command, timeout=20)
        said = self._call(self._runtime.ExecSync, request)
        if said.exit_code != 0:
            raise CriError(f"{command}: {said.exit_code}: {said.stderr.decode(errors='replace')}")
        return str(said.stdout.decode())

    def addresses(self, sandbox: str) -> list[str]:
        """A pod's addresses, as its status shows them."""
        request = _messages.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
        network = self._call(self._runtime.PodSandboxStatus, request).status.network
        return [network.ip, *(one.ip for one in network.additional_ips)]

    def sandboxes(self) -> dict[str, bool]:
        """Each sandbox that there is, and whether it is ready."""
        items = self._call(self._runtime.ListPodSandbox, _messages.ListPodSandboxRequest()).items
        return {one.id: one.state == _messages.SANDBOX_READY for one in items}

    def stop(self, sandbox: str) -> None:
        """Stop a pod: its containers end, and its network is taken down."""
        self._call(self._runtime.StopPodSandbox, _stopping(sandbox))

    def remove(self, sandbox: str) -> None:
        """Remove a pod; one that is not stopped is stopped first."""
        self._call(self._runtime.RemovePodSandbox, _removing(sandbox))

    def run_together(self, pods: Sequence[Pod]) -> list[Ended]:
        """Start pods, none of which waits for another; each answer is a sandbox's id."""
        requests = [_messages.RunPodSandboxRequest(config=pod.config()) for pod in pods]
        ended = self._together(self._runtime.RunPodSandbox, requests)
        self._pods |= {one.answer: pod for one, pod in zip(ended, pods, strict=True) if one.answer}
        return ended

    def take_down_together(self, sandboxes: Iterable[str]) -> list[Ended]:
        """Stop and remove pods, none of which waits for another; the times are of the stops."""
        names = list(sandboxes)
        stopped = self._together(self._runtime.StopPodSandbox, map(_stopping, names))
        removed = self._together(self._runtime.RemovePodSandbox, map(_removing, names))
        return [
            Ended("", first.error or second.error, first.milliseconds)
            for first, second in zip(stopped, removed, strict=True)
        ]

    def _call(self, method: Any, request: Any) -> Any:
        """Raises CriError. A daemon that is being started again is waited for."""
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return method(request, timeout=self._seconds, wait_for_ready=True)
            except grpc.RpcError as error:
                if error.details() != _STARTING or time.monotonic() > deadline:
                    raise CriError(error.details()) from None
            time.sleep(0.01)

    def _together(self, method: Any, requests: Iterable[Any]) -> list[Ended]:
        ended: queue.SimpleQueue[tuple[int, float, Any]] = queue.SimpleQueue()

        def noting(index: int) -> Callable[[Any], None]:
            return lambda future: ended.put((index, time.perf_counter(), future))

        begun = []
        for index, request in enumerate(requests):
            begun.append(time.perf_counter())
            future = method.future(request, timeout=self._seconds)
            future.add_done_callback(noting(index))
        found = sorted((ended.get() for _ in begun), key=lambda one: one[0])
        return [_ended(future, at - begun[index]) for index, at, future in found]


def _stopping(sandbox: str) -> Any:
    return _messages.StopPodSandboxRequest(pod_sandbox_id=sandbox)


def _removing(sandbox: str) -> Any:
    return _messages.RemovePodSandboxRequest(pod_sandbox_id=sandbox)


def _ended(future: Any, seconds: float) -> Ended:
    try:
        answer = str(getattr(future.result(), "pod_sandbox_id", ""))
    except grpc.RpcError as error:
        return Ended("", str(error.details()), seconds * 1000)
    return Ended(answer, "", seconds * 1000)
