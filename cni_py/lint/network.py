"""A network as it is written: its name, version and plugins."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from cni_py.spec import versions
from cni_py.spec.errors import refusals
from cni_py.spec.names import validate_network_name

from .keys import check_names

if TYPE_CHECKING:
    from cni_py.spec.located import Node

    from .files import File
    from .finding import Notes

_LIST_KEYS = (
    "cniVersion",
    "cniVersions",
    "name",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    # podman's labels and options of the network.
    "args",
    "plugins",
)
_MOST_PLUGINS = 100
_FLAGS = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")


class Network(NamedTuple):
    """What a file says: `name` is `""` and `plugins` are empty where that cannot be told."""

    file: File
    root: Node
    name: str
    version: str
    plugins: tuple[Node, ...]
    is_list: bool


def read(notes: Notes, file: File) -> Network | None:
    """The network in a file, with what is wrong with it noted; None where there is none."""
    root = file.parsed.root
    if root is None:
        return None
    if root.kind != "object":
        notes.error(root, "a network's configuration is an object", "{...}")
        return None
    is_list = root.member("plugins") is not None or file.extension == ".conflist"
    _check_extension(notes, file, root)
    name = _name(notes, root)
    version = _version(notes, root)
    if not is_list:
        return Network(file, root, name, version, (root,), is_list=False)
    check_names(notes, root, _LIST_KEYS, "a network's list")
    for flag in _FLAGS:
        node = root.get(flag)
        # libcni also takes the words.
        if node is not None and node.value not in (True, False, "true", "false"):
            notes.error(node, f"`{flag}` has to be true or false")
    return Network(file, root, name, version, _plugins(notes, root), is_list=True)


def _check_extension(notes: Notes, file: File, root: Node) -> None:
    plugins = root.member("plugins")
    if file.extension in (".conf", ".json") and plugins is not None:
        text = f"a {file.extension} has one plugin, and this is a list: runtimes refuse it"
        notes.error(plugins.offset, text, "call the file .conflist")
    elif file.extension == ".conflist" and plugins is None and root.member("type") is not None:
        text = "a .conflist has its plugins in a list `plugins`, and this is a single one"
        notes.error(root, text, "call the file .conf, or put the plugin into `plugins`: [{...}]")
    elif file.extension not in ("", ".conf", ".json", ".conflist"):
        text = f"runtimes do not look at files called {file.extension}"
        notes.add(root, "info", text, "call it .conflist")


def _name(notes: Notes, root: Node) -> str:
    node = root.get("name")
    if node is None or node.value == "":
        notes.error(root if node is None else node, "the network has no name", 'add "name": "..."')
        return ""
    if node.kind != "string":
        notes.error(node, "the network's name has to be a string")
        return ""
    for error in refusals("name", validate_network_name, str(node.value)):
        hint = "a letter or digit, then letters, digits, `_`, `.` and `-`"
        notes.error(node, f'the name "{str(node.value)[:80]}" cannot be one: {error.msg}', hint)
        return ""
    return str(node.value)


def _version(notes: Notes, root: Node) -> str:
    """The protocol version that plugins are called with."""
    allowed = root.get("cniVersions")
    if allowed is not None:
        if allowed.kind != "array":
            notes.error(allowed, "`cniVersions` has to be a list of versions")
        known = [one.value for one in allowed.items if _is_version(notes, one)]
        if known and root.get("cniVersion") is None:
            return max(map(str, known), key=versions.ALL.index)
    node = root.get("cniVersion")
    if node is None or node.value == "":
        text = "there is no `cniVersion`, which means 0.1.0: without CHECK, GC and STATUS"
        notes.warn(root if node is None else node, text, 'add "cniVersion": "1.0.0"')
        return versions.WHEN_MISSING
    return str(node.value) if _is_version(notes, node) else ""


def _is_version(notes: Notes, node: Node) -> bool:
    if node.kind != "string":
        notes.error(node, "a protocol version is a string", f'such as "{versions.NEWEST}"')
        return False
    if node.value in versions.ALL:
        return True
    alike = get_close_matches(str(node.value), versions.ALL, n=1)
    hint = f"did you mean {alike[0]}? " if alike else ""
    text = f'"{str(node.value)[:40]}" is no version of the protocol'
    notes.error(node, text, f"{hint}there are {', '.join(versions.ALL)}")
    return False


def _plugins(notes: Notes, root: Node) -> tuple[Node, ...]:
    node = root.get("plugins")
    if node is None:
        if root.member("type") is None:
            text = "there are no `plugins`"
            notes.error(root, text, 'a network has at least one: "plugins": [{"type": ...}]')
        return ()
    if node.kind != "array":
        notes.error(node, "`plugins` has to be a list", "put it into brackets: [{...}]")
        return ()
    if not node.items:
        notes.error(node, "`plugins` is empty", "a network has at least one plugin")
    for one in node.items:
        if one.kind != "object":
            notes.error(one, "a plugin's configuration is an object", '{"type": ...}')
    plugins = [one for one in node.items if one.kind == "object"]
    if len(plugins) > _MOST_PLUGINS:
        text = f"there are {len(plugins)} plugins: no more than {_MOST_PLUGINS} are looked at"
        notes.warn(plugins[_MOST_PLUGINS], text)
    return tuple(plugins[:_MOST_PLUGINS])


def require_type(notes: Notes, node: Node, key: str, whose: str) -> str:
    """The `type` in an object, `""` where there is none that can be one."""
    found = node.get(key)
    if found is None or found.value == "":
        notes.error(node if found is None else found, f"{whose} has no `type`")
        return ""
    if found.kind != "string":
        notes.error(found, "`type` has to be a string")
        return ""
    return str(found.value)
