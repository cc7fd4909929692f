"""Counting calls, in Prometheus' text format (exposition format 0.0.4)."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from cni_py import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SAMPLE = re.compile(
    r"^(?P<name>[a-z0-9_]+)(?:\{(?P<labels>.*)\})? (?P<value>[^ ]+)$", re.MULTILINE
)
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')
_BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000)


class Sample(NamedTuple):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


def samples(text: str) -> list[Sample]:
    """The values in a text of `Metrics.text`."""
    found = []
    for match in _SAMPLE.finditer(text):
        labels = {} if match["labels"] is None else dict(_LABEL.findall(match["labels"]))
        found.append(Sample(match["name"], labels, float(match["value"])))
    return found


class Metrics:
    """Calls by plugin, verb and code, and how long they took."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str, int], int] = defaultdict(int)
        self._buckets: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = defaultdict(float)
        self.lost = 0

    def count(self, plugin: str, verb: str, code: int, milliseconds: float) -> None:
        """One call has ended; code -1 is success."""
        self._calls[plugin, verb, code] += 1
        key = (plugin, verb)
        buckets = self._buckets.setdefault(key, [0] * (len(_BUCKETS_MS) + 1))
        buckets[bisect_left(_BUCKETS_MS, milliseconds)] += 1
        self._sums[key] += milliseconds

    def text(self, gauges: Mapping[str, tuple[str, int]]) -> str:
        """All of it; `gauges` are (help, value) by name, as they are now."""
        return "\n".join((*self._lines(gauges), ""))

    def _lines(self, gauges: Mapping[str, tuple[str, int]]) -> Iterator[str]:
        yield "# HELP cni_py_info The server's version."
        yield "# TYPE cni_py_info gauge"
        yield f'cni_py_info{{version="{__version__}"}} 1'
        yield "# HELP cni_py_calls_total Calls that have ended, by error code ('' is success)."
        yield "# TYPE cni_py_calls_total counter"
        for (plugin, verb, code), number in sorted(self._calls.items()):
            shown = "" if code < 0 else code
            yield f'cni_py_calls_total{{plugin="{plugin}",verb="{verb}",code="{shown}"}} {number}'
        yield "# HELP cni_py_call_milliseconds How long calls took, from hand-over to end."
        yield "# TYPE cni_py_call_milliseconds histogram"
        for (plugin, verb), buckets in sorted(self._buckets.items()):
            labels = f'plugin="{plugin}",verb="{verb}"'
            total = 0
            for limit, number in zip((*_BUCKETS_MS, "+Inf"), buckets, strict=True):
                total += number
                yield f'cni_py_call_milliseconds_bucket{{{labels},le="{limit}"}} {total}'
            yield f"cni_py_call_milliseconds_sum{{{labels}}} {self._sums[plugin, verb]:.3f}"
            yield f"cni_py_call_milliseconds_count{{{labels}}} {total}"
        yield "# HELP cni_py_lost_workers_total Workers that died before their call had ended."
        yield "# TYPE cni_py_lost_workers_total counter"
        yield f"cni_py_lost_workers_total {self.lost}"
        for name, (text, value) in gauges.items():
            yield f"# HELP cni_py_{name} {text}"
            yield f"# TYPE cni_py_{name} gauge"
            yield f"cni_py_{name} {value}"
