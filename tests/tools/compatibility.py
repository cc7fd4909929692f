"""Write docs/compatibility.md: every key of every reference plugin, and the tests that use it.

    compatibility.py            write the document
    compatibility.py --check    exit with 1 if it is not up to date, or a key has no test

The keys, and what is different, are in docs/compatibility.toml. A test uses a key if its name
stands in the test's source, or in what the test refers to in its module or in the fixtures.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
SOURCE = ROOT / "docs" / "compatibility.toml"
DOCUMENT = ROOT / "docs" / "compatibility.md"
SHARED = (TESTS / "fixtures" / "configs.py",)
_HEAD = """# Keys of the reference plugins

Written by `tests/tools/compatibility.py` from `docs/compatibility.toml` and the tests: for each key
of containernetworking/plugins 1.9.1, unless said otherwise, whether a test uses it, and whether
cni-py does the same. What differs beyond single keys is in [differences.md](differences.md).
"""


@dataclass
class Named:
    """Something that a module defines: the words in it, and the names that it refers to."""

    words: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def main() -> int:
    described = tomllib.loads(SOURCE.read_text())
    text, untested = document(described)
    if "--check" not in sys.argv:
        DOCUMENT.write_text(text)
        return 0
    for one in untested:
        print(f"compatibility: no test uses {one}")
    if DOCUMENT.read_text() != text:
        print("compatibility: docs/compatibility.md is not up to date")
        return 1
    return 1 if untested else 0


def document(described: dict[str, Any]) -> tuple[str, list[str]]:
    """The document's text, and the keys without a test."""
    lines, untested = [_HEAD], []
    shared = {name: one for path in SHARED for name, one in definitions(path).items()}
    for plugin, about in described.items():
        lines += [f"## {plugin}", ""]
        if "of" in about:
            lines += [f"Keys of {about['of']}.", ""]
        lines += ["| key | tested | as the reference |", "| --- | --- | --- |"]
        modules = sorted({path for glob in about["tests"] for path in TESTS.glob(glob)})
        tests = [words for path in modules for words in words_of_tests(path, shared)]
        for key, same in about["keys"].items():
            # Of `ipam.ranges[].subnet` the last part is what a test has to name.
            word = key.rsplit(".", 1)[-1].removesuffix("[]")
            tested = any(word in words for words in tests)
            if not tested:
                untested.append(f"{plugin}: {key}")
            lines.append(f"| `{key}` | {'yes' if tested else 'no'} | {same} |")
        lines.append("")
    return "\n".join(lines), untested


def words_of_tests(path: Path, shared: dict[str, Named]) -> list[set[str]]:
    """For each test function of a module the words that it uses, itself or by what it refers to."""
    known = {**shared, **definitions(path)}
    found = []
    for name, one in known.items():
        if not name.startswith("test_"):
            continue
        words, seen, todo = set(one.words), {name}, list(one.names)
        while todo:
            other = todo.pop()
            if other in known and other not in seen:
                seen.add(other)
                words |= known[other].words
                todo += known[other].names
        found.append(words)
    return found


def definitions(path: Path) -> dict[str, Named]:
    """What a module defines at its top, by name."""
    found: dict[str, Named] = {}
    for node in ast.parse(path.read_text()).body:
        names: list[str] = []
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one.id for one in targets if isinstance(one, ast.Name)]
        for name in names:
            described = found.setdefault(name, Named())
            for inner in ast.walk(node):
                _note(inner, described)
    return found


def _note(node: ast.AST, described: Named) -> None:
    if isinstance(node, ast.Name):
        described.names.add(node.id)
    elif isinstance(node, ast.keyword) and node.arg:
        described.words.add(node.arg)
    elif isinstance(node, ast.arg):
        # A fixture: a function of the module.
        described.names.add(node.arg)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        described.words |= set(_split(node.value))


def _split(text: str) -> list[str]:
    """Words of a text: CNI_ARGS, JSON and shell have keys in them."""
    return "".join(char if char.isalnum() or char in "-_" else " " for char in text).split()


if __name__ == "__main__":
    sys.exit(main())
