"""The reference of a package as Markdown: what its `__all__` names, signatures and docstrings."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[2]
_MAIN = "Runtime"
_FIRST = ("runtime", "requests", "networks", "folders", "threaded")
_SPECIAL = ("__enter__", "__exit__", "__await__")


def reference(package: str) -> str:
    """A section for each name, those of one module together, in the modules' own order."""
    loaded = griffe.load(package, search_paths=[str(ROOT)], allow_inspection=False)
    assert isinstance(loaded, griffe.Module)
    named = [_target(loaded[str(name)]) for name in loaded.exports or ()]
    named.sort(key=lambda one: (*_rank(one, package), one.name != _MAIN, one.lineno or 0))
    return "\n".join(line for one in named for line in _section(one))


def _target(found: griffe.Object | griffe.Alias) -> griffe.Object:
    target = found.final_target if isinstance(found, griffe.Alias) else found
    assert isinstance(target, griffe.Object)
    return target


def _rank(found: griffe.Object, package: str) -> tuple[int, str]:
    """The package's own come first, and of its modules what most begin with."""
    module = found.path.rsplit(".", 1)[0]
    own = module.removeprefix(f"{package}.")
    if own in _FIRST:
        return _FIRST.index(own), module
    return len(_FIRST) + (not module.startswith(package)), module


def _section(found: griffe.Object) -> Iterator[str]:
    yield from (f"## {found.name}", "")
    if isinstance(found, griffe.Function):
        yield from _function(found)
        return
    assert isinstance(found, griffe.Class)
    bases = f"({', '.join(map(str, found.bases))})" if found.bases else ""
    fields = [one for one in found.members.values() if _is_field(one)]
    yield from ("```python", f"class {found.name}{bases}", *map(_field, fields), "```", "")
    yield from (_text(found), "")
    for name, member in found.members.items():
        if isinstance(member, griffe.Function) and (not name.startswith("_") or name in _SPECIAL):
            yield from (f"### {found.name}.{name}", "")
            yield from _function(member)
        elif _is_property(member):
            assert isinstance(member, griffe.Attribute)
            yield from (f"### {found.name}.{name}", "", "```python", f"{name}: {member.annotation}")
            yield from ("```", "", _text(member), "")


def _is_property(member: griffe.Object | griffe.Alias) -> bool:
    return "property" in member.labels and not member.name.startswith("_")


def _is_field(member: griffe.Object | griffe.Alias) -> bool:
    """Declared in the class itself; what __init__ sets is told by the docstring."""
    own = isinstance(member, griffe.Attribute) and "class-attribute" in member.labels
    annotated = isinstance(member, griffe.Attribute) and member.annotation is not None
    return (own or annotated) and not member.name.startswith("_") and not _is_property(member)


def _field(member: griffe.Object | griffe.Alias) -> str:
    assert isinstance(member, griffe.Attribute)
    annotation = f": {member.annotation}" if member.annotation is not None else ""
    value = f" = {member.value}" if member.value is not None else ""
    return f"    {member.name}{annotation}{value}"


def _function(found: griffe.Function) -> Iterator[str]:
    yield from ("```python", str(found.signature()), "```", "", _text(found), "")


def _text(found: griffe.Object) -> str:
    return cleandoc(found.docstring.value) if found.docstring is not None else ""
