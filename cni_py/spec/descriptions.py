"""What each key of a configuration means: the texts below the fields of the types that read them.

A string below a field is no code: the compiler drops it, so that it costs a plugin nothing. Here it
is read from the source.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from .addresses import IP, Cidr, encode_hook
from .config import PluginConfig, alternatives, element_type, field_types, struct_type

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS = {str: "string", bool: "bool", int: "int", float: "number", IP: "address", Cidr: "prefix"}
_WORDS |= {type(None): "null", Any: "anything"}


class Key(NamedTuple):
    """One key of a configuration.

    `path` is as in `ipam.ranges[][].subnet`; `default` is JSON, and empty for a key that is
    `required` where the object that it is in is given. `shared` keys are those of every plugin.
    """

    path: str
    type: str
    default: str
    description: str
    required: bool
    shared: bool


def described(config: type[msgspec.Struct]) -> Iterator[Key]:
    """Every key of a plugin's `Config` in the declaration's order, an object before its members."""
    yield from _keys(config, "", shared=False)


def structs_of(config: type[msgspec.Struct]) -> dict[type[msgspec.Struct], None]:
    """The struct and all that it is made of, each once, outermost first."""
    found: dict[type[msgspec.Struct], None] = {config: None}
    for wanted in field_types(config).values():
        inner, _ = _innermost(wanted)
        if inner is not None and inner not in found:
            found |= structs_of(inner)
    return found


@cache
def field_descriptions(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The description of each key that has one, by the key's name in JSON."""
    texts: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            texts |= _written(base)
    names = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    return {name: texts[field] for field, name in names if field in texts}


@cache
def _written(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The texts in the class's own source, by field; none where the source is not to be had."""
    try:
        source = textwrap.dedent(inspect.getsource(struct))
    except (OSError, TypeError):
        return {}
    declaration = ast.parse(source).body[0]
    assert isinstance(declaration, ast.ClassDef)
    texts: dict[str, str] = {}
    field = ""
    for statement in declaration.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            field = statement.target.id
            continue
        if field and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            texts[field] = " ".join(str(statement.value.value).split())
        field = ""
    return texts


def _keys(struct: type[msgspec.Struct], prefix: str, *, shared: bool) -> Iterator[Key]:
    texts, types = field_descriptions(struct), field_types(struct)
    for field in msgspec.structs.fields(struct):
        path = prefix + field.encode_name
        is_shared = shared or (not prefix and field.name in PluginConfig.__struct_fields__)
        yield Key(
            path,
            in_words(types[field.name]),
            _default(field),
            texts.get(field.encode_name, ""),
            field.required,
            is_shared,
        )
        inner, depth = _innermost(types[field.name])
        if inner is not None:
            yield from _keys(inner, path + "[]" * depth + ".", shared=is_shared)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    made = field.default_factory is not msgspec.NODEFAULT
    value = field.default_factory() if made else field.default
    return msgspec.json.encode(value, enc_hook=encode_hook).decode()


def _innermost(wanted: Any) -> tuple[type[msgspec.Struct] | None, int]:
    """The struct inside a type, and how many lists it is in."""
    depth = 0
    while (element := element_type(wanted)) is not None:
        wanted, depth = element, depth + 1
    return struct_type(wanted), depth


def in_words(wanted: Any) -> str:
    """A type in words: `list of prefixes` is `list of prefix`."""
    given = [one for one in alternatives(wanted) if one is not type(None)]
    if len(given) > 1:
        return " or ".join(map(in_words, given))
    only = given[0] if given else wanted
    if get_origin(only) is Annotated:
        return in_words(get_args(only)[0])
    if get_origin(only) is Literal:
        return "string"
    if (element := element_type(only)) is not None:
        return f"list of {in_words(element)}"
    if get_origin(only) is dict:
        return f"object of {in_words(get_args(only)[1])}"
    return "object" if struct_type(only) is not None else _WORDS[only]
