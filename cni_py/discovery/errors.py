"""What a client is told where a service cannot be had."""

from __future__ import annotations


class NoInstanceError(LookupError):
    """The registry has no instance of the service: none was registered, or none is healthy."""

    def __init__(self, service: str) -> None:
        super().__init__(f'service "{service}" has no healthy instance')
        self.service = service


class UnreachableError(ConnectionError):
    """No instance answered in time. `__cause__` is what the last one that was tried raised."""

    def __init__(self, service: str, tried: int, seconds: float, last: str) -> None:
        super().__init__(
            f'service "{service}": {tried} attempts failed within {seconds:g} s; the last: {last}'
        )
        self.service = service
        self.tried = tried
