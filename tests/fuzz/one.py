"""One target under atheris: `python -m fuzz.one TARGET LIBFUZZER-ARGUMENT...`."""

from __future__ import annotations

import resource
import sys

import atheris

with atheris.instrument_imports(include=["cni_py"]):
    from . import target as shared

    NAME = sys.argv[1]
    TARGET = shared.load(NAME)

_MOST_FILES = 1024


def _mutated(data: bytes, most: int, seed: int) -> bytes:
    return shared.mutated_json(data, most, seed, atheris.Mutate)


def main() -> None:
    """Run until a defect or the end of the time."""
    # A descriptor that is never closed is found by running out of them.
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, _MOST_FILES))
    shared.prepare(shared.all_seeds(NAME))
    arguments = [sys.argv[0], *sys.argv[2:]]
    if getattr(TARGET, "JSON", False):
        atheris.Setup(arguments, TARGET.run, custom_mutator=_mutated)
    else:
        atheris.Setup(arguments, TARGET.run)
    atheris.Fuzz()


main()
