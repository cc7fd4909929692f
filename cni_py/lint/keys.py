"""A plugin's keys against its types: what there is not, what is spelled or typed another way."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec

from cni_py.spec.addresses import IP, decode_hook
from cni_py.spec.config import alternatives, element_type, struct_type
from cni_py.spec.descriptions import in_words
from cni_py.spec.foreign_keys import is_foreign

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni_py.spec.located import Node

    from .finding import Notes

_KINDS = {"object": "an object", "array": "a list", "string": "a string", "number": "a number"}
_KINDS |= {"bool": "true or false", "null": "null", "unknown": "no JSON"}
_ALIKE = 0.75
_SHOWN = 40


def check_object(
    notes: Notes, node: Node, struct: type[msgspec.Struct], whose: str, also: Collection[str] = ()
) -> bool:
    """Note what does not fit the struct; whether every value does. `also` are further keys."""
    fields = {one.encode_name: one for one in msgspec.structs.fields(struct)}
    check_names(notes, node, (*fields, *also), whose)
    fits = True
    for name, one in fields.items():
        value = node.get(name)
        if value is not None:
            fits &= check_value(notes, value, one.type, name)
        elif one.required and name != "name":
            notes.error(node, f"{whose} needs the key `{name}`")
            fits = False
    return fits


def check_names(notes: Notes, node: Node, names: Collection[str], whose: str) -> None:
    """Note keys that are not among the names, are spelled another way, or stand there twice."""
    folded = {one.lower(): one for one in names}
    seen: dict[str, str] = {}
    for one in node.members:
        key = one.key
        name = folded.get(key.lower())
        if name is None:
            _unknown(notes, one.offset, key, names, whose)
        elif name != key:
            text = f"`{key}` is read as `{name}`"
            notes.add(one.offset, "info", text, "other readers of this file may not do so")
        if (name or key) in seen:
            earlier = seen[name or key]
            what = (
                f"`{key}` stands there twice" if earlier == key else f"`{earlier}` is `{key}` too"
            )
            notes.warn(one.offset, what, "one of them is not looked at")
        seen[name or key] = key


def _unknown(notes: Notes, offset: int, key: str, names: Collection[str], whose: str) -> None:
    if is_foreign(key) or not key:
        return
    folded = {one.lower(): one for one in names}
    alike = get_close_matches(key.lower().replace("_", "").replace("-", ""), folded, 1, _ALIKE)
    shown = key if len(key) <= _SHOWN else key[:_SHOWN] + "..."
    if alike:
        notes.error(offset, f"{whose} has no key `{shown}`", f"did you mean `{folded[alike[0]]}`?")
    else:
        notes.warn(offset, f"{whose} has no key `{shown}`", "it is ignored")


def check_value(notes: Notes, node: Node, wanted: Any, path: str) -> bool:
    """Note what does not fit a type; whether it all does."""
    if node.kind == "unknown":
        return False
    if wanted is Any:
        return True
    struct, element = struct_type(wanted), element_type(wanted)
    if struct is not None:
        if node.kind != "object":
            return _mistyped(notes, node, wanted, path)
        return check_object(notes, node, struct, f"`{path}`")
    if element is not None:
        if node.kind != "array":
            return _mistyped(notes, node, wanted, path)
        each = [check_value(notes, one, element, path) for one in node.items]
        return all(each)
    mapped = next((one for one in alternatives(wanted) if get_origin(one) is dict), None)
    if mapped is not None:
        if node.kind != "object":
            return _mistyped(notes, node, wanted, path)
        values = get_args(mapped)[1]
        check_names(notes, node, [one.key for one in node.members], f"`{path}`")
        each = [check_value(notes, one.node, values, f"{path}.{one.key}") for one in node.members]
        return all(each)
    return _check_scalar(notes, node, wanted, path)


def _check_scalar(notes: Notes, node: Node, wanted: Any, path: str) -> bool:
    is_address = IP in alternatives(wanted)
    if node.kind == "null" or (is_address and node.value == ""):
        return True
    if node.kind in ("object", "array"):
        return _mistyped(notes, node, wanted, path)
    try:
        msgspec.convert(node.value, wanted, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        text = str(error).partition(" - at ")[0]
        if text.startswith("Expected") and "got" in text:
            return _mistyped(notes, node, wanted, path)
        if "matching regex" in text:
            return _mistyped(notes, node, wanted, path)
        hint = "write it with a prefix length, as 10.88.0.0/16" if "CIDR" in text else ""
        notes.error(node, f"`{path}`: {text[:1].lower()}{text[1:]}", hint)
        return False
    return True


def _mistyped(notes: Notes, node: Node, wanted: Any, path: str) -> bool:
    words = in_words(wanted)
    hint = ""
    if node.kind == "string":
        unquoted = str(node.value).strip().lower()
        is_number = unquoted.lstrip("-").isascii() and unquoted.lstrip("-").isdigit()
        if ("int" in words and is_number) or ("bool" in words and unquoted in ("true", "false")):
            hint = f"write {unquoted} without quotes"
            notes.error(node, f"`{path}` is a string, and has to be: {words}", hint)
            return False
        if "string" in words:
            notes.error(node, f'`{path}` cannot be "{str(node.value)[:_SHOWN]}"')
            return False
    elif node.kind in ("number", "bool") and words == "string":
        shown = str(node.value).lower() if node.kind == "bool" else str(node.value)
        hint = f'write "{shown[:_SHOWN]}"'
    elif node.kind != "array" and words.startswith("list of list"):
        hint = "it is a list of lists: [[{...}]]"
    elif node.kind != "array" and words.startswith("list"):
        hint = "put it into brackets: [...]"
    notes.error(node, f"`{path}` is {_KINDS[node.kind]}, and has to be: {words}", hint)
    return False
