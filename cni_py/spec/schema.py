"""JSON Schemas of the plugins' configurations, from the same types that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .addresses import IP, Cidr
from .descriptions import described, field_descriptions, structs_of

if TYPE_CHECKING:
    from .config import PluginConfig

__all__ = ["DIALECT", "config_schema", "described"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema(name: str, config: type[PluginConfig]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one plugin's configuration, with what each key means."""
    # Defaults come as tuples: encoding makes JSON of them.
    schema = msgspec.json.decode(
        msgspec.json.encode(msgspec.json.schema(config, schema_hook=_address_schema))
    )
    for struct in structs_of(config):
        properties = schema["$defs"][struct.__name__]["properties"]
        for key, text in field_descriptions(struct).items():
            properties[key]["description"] = text
    return {"$schema": DIALECT, "title": f"{name}: plugin configuration", **schema}


def _address_schema(wanted: Any) -> dict[str, Any]:
    """What msgspec cannot know of the address types."""
    if wanted is Cidr:
        return {"type": "string", "pattern": "^[^/%]+/[0-9]{1,3}$", "description": "address/prefix"}
    if wanted is IP:
        return {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
    raise NotImplementedError(wanted)
