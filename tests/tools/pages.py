"""Write what is generated in docs/, and the site's navigation.

    python -m tools.pages            write it
    python -m tools.pages --check    exit with 1 and name each file that is not up to date

Regions of a page between `<!-- NAME -->` and `<!-- /NAME -->` are replaced; what stands around them
is written by hand:

    example: FILE    the configuration of that name in conf/
    keys             the keys of a plugin's configuration, from its types
    passed           what a runtime passes to the plugin: capabilities and `args`
    shared           the keys that every plugin has
    commands         the commands of cni-py
    decisions        the decisions' titles
    reference: NAME  a package's signatures and docstrings
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path, PurePath

from tools.reference import reference

from cni_py.cli import COMMANDS
from cni_py.cli import main as command_line
from cni_py.skel import EXECUTABLES
from cni_py.spec.schema import described

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SITE = ROOT / "zensical.toml"
_REGION = re.compile(r"(<!-- ([a-z]+)(?:: (\S+))? -->\n).*?(<!-- /\2 -->)", re.DOTALL)
_NAVIGATION = re.compile(r"(# Navigation: .*?\n).*?(# End of the navigation\.)", re.DOTALL)
_PASSED = ("runtimeConfig", "args")
_NOTHING = ("", '""', "null", "[]", "{}")

# Pages of a part of the site, in the order to be read. A new page of a folder finds its place.
_PARTS = {
    "Guide": (
        "guide",
        "migration",
        "containerd",
        "kubernetes",
        "podman",
        "runtimes",
        "troubleshooting",
        "names",
        "services",
        "firewall",
    ),
    "Plugins": ("plugins/index", "plugins/*", "differences", "compatibility"),
    "Commands": ("commands/index", "commands/*"),
    "Library": ("runtime", "runtime-*", "discovery", "discovery-*"),
    "Inside": ("architecture", "performance", "scale", "reliability", "security", "*"),
    "Decisions": ("decisions/index", "decisions/*"),
}


def main() -> int:
    stale = [path for path, text in written() if path.read_text() != text]
    if "--check" not in sys.argv:
        for path, text in written():
            path.write_text(text)
        return 0
    for path in stale:
        print(f"pages: {path.relative_to(ROOT)} is not up to date: `make pages` writes it")
    return 1 if stale else 0


def written() -> Iterable[tuple[Path, str]]:
    """Every file that has something generated, and its text."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text()
        if _REGION.search(text):
            yield path, _REGION.sub(lambda found, path=path: _region(path, found), text)
    yield SITE, _NAVIGATION.sub(rf"\1{_navigation()}\2", SITE.read_text())


def _region(path: Path, found: re.Match[str]) -> str:
    begin, name, argument, end = found.groups()
    text = {
        "example": lambda: _example(argument),
        "keys": lambda: _keys(path.stem),
        "passed": lambda: _passed(path.stem),
        "shared": _shared,
        "commands": _commands,
        "decisions": _decisions,
        "reference": lambda: reference(argument),
    }[name]()
    return f"{begin}\n{text}\n{end}"


def _example(name: str) -> str:
    return f"```json\n{(ROOT / 'conf' / name).read_text()}```\n"


def _keys(plugin: str) -> str:
    rows = [one for one in _described(plugin) if not one.shared]
    rows = [one for one in rows if one.path.split(".")[0] not in _PASSED]
    return _table(rows)


def _passed(plugin: str) -> str:
    rows = [one for one in _described(plugin) if one.path.split(".")[0] in _PASSED]
    return _table([one for one in rows if one.path not in (*_PASSED, "args.cni")])


def _shared() -> str:
    return _table([one for one in _described("loopback") if one.shared])


def _described(plugin: str) -> list:
    return list(described(import_module(EXECUTABLES[plugin].module).Config))


def _table(keys: Iterable) -> str:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for one in keys:
        meaning = one.description.replace("|", "\\|")
        lines.append(f"| `{one.path}` | {one.type} | {_default(one)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(key) -> str:
    if key.required:
        return "needed"
    # What an object has by default is told by its members.
    if key.default in _NOTHING or key.default.startswith("{"):
        return ""
    return f"`{key.default.strip(chr(34))}`"


def _commands() -> str:
    lines = ["| command | what it does |", "| --- | --- |"]
    for name in sorted(COMMANDS):
        command = command_line.get_command(None, name)
        page = DOCS / "commands" / f"{name}.md"
        link = f"[`cni-py {name}`]({name}.md)" if page.exists() else f"`cni-py {name}`"
        lines.append(f"| {link} | {command.get_short_help_str(limit=200)} |")
    return "\n".join(lines) + "\n"


def _decisions() -> str:
    paths = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    return "\n".join(f"- [{_title(path)}]({path.name})" for path in paths) + "\n"


def _navigation() -> str:
    lines = ["nav = [", '  { "Start" = "index.md" },']
    for part, pages in _PARTS.items():
        listed = [f'    {{ "{_short(one)}" = "{one}" }},' for one in _pages(pages)]
        lines += [f'  {{ "{part}" = [', *listed, "  ] },"]
    return "\n".join([*lines, "]"]) + "\n"


def _pages(listed: Iterable[str]) -> Iterable[str]:
    """The pages that patterns stand for; the most exact pattern of all has a page."""
    patterns = ["index", *(one for pages in _PARTS.values() for one in pages)]
    for pattern in listed:
        for path in sorted(DOCS.glob(f"{pattern}.md")):
            page = str(path.relative_to(DOCS))
            fitting = [one for one in patterns if PurePath(page).match(f"{one}.md")]
            if max(fitting, key=len) == pattern:
                yield page


def _short(page: str) -> str:
    title = _title(DOCS / page)
    if page.endswith("/index.md"):
        return "Overview"
    return title.removeprefix("cni-py ").replace('"', '\\"')


def _title(path: Path) -> str:
    return path.read_text().split("\n", 1)[0].removeprefix("# ").replace("`", "")


if __name__ == "__main__":
    sys.exit(main())
