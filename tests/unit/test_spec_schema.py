"""The JSON Schemas: they describe what the decoder accepts (spec.md 8.4, 10; plugins.md J-03)."""

import jsonschema
import msgspec
import pytest

from cni_py.spec.addresses import IP, Cidr, Network
from cni_py.spec.config import IpamType, PluginConfig, decode_config
from cni_py.spec.errors import CniError
from cni_py.spec.schema import config_schema, described


class Part(msgspec.Struct):
    first: IP
    """The first one."""


class Ranges(PluginConfig, frozen=True):
    subnet: Cidr | None = None
    """Where the addresses
    lie.
    """
    gateway: IP | None = None
    mtu: int = 0
    ipam: IpamType = IpamType()
    sets: tuple[tuple[Part, ...], ...] = ()


SCHEMA = config_schema("example", Ranges)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_header():
    """[RC-08] A draft 2020-12 document with the plugin's name."""
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "example: plugin configuration"
    assert jsonschema.Draft202012Validator.check_schema(SCHEMA) is None


def test_base_keys():
    """[RC-07] [RC-08] The keys that all plugins share, in the protocol's spelling."""
    properties = msgspec.to_builtins(SCHEMA["$defs"]["Ranges"]["properties"])
    assert {"cniVersion", "name", "type", "capabilities", "dns", "ipam"} <= set(properties)
    assert SCHEMA["$defs"]["Ranges"]["required"] == ["name"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param({"name": "n"}, id="[RC-08] least"),
        pytest.param({"name": "n", "unknown": [1]}, id="[J-02] unknown key"),
        pytest.param(
            {"name": "n", "subnet": "10.0.0.0/8", "gateway": "::1"}, id="[J-04] addresses"
        ),
        pytest.param({"name": "n", "subnet": None, "gateway": None}, id="[J-02] null"),
        pytest.param({"name": "n", "ipam": {"type": "x", "y": 1}}, id="[RC-07] ipam of a delegate"),
        pytest.param({"name": "n", "capabilities": {"mac": True}}, id="[RC-08] capabilities"),
    ],
)
def test_schema_and_decoder_accept(raw):
    assert list(VALIDATOR.iter_errors(raw)) == []
    assert decode_config(raw, Ranges).name == "n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param({}, id="[RC-08] no name"),
        pytest.param({"name": 5}, id="[J-03] number for text"),
        pytest.param({"name": "n", "mtu": "1500"}, id="[J-03] text for number"),
        pytest.param({"name": "n", "mtu": True}, id="[trap 6] boolean for number"),
        pytest.param({"name": "n", "mtu": 1500.5}, id="[trap 7] fraction for number"),
        pytest.param({"name": "n", "subnet": "10.0.0.0"}, id="[P-01] no prefix length"),
        pytest.param({"name": "n", "subnet": "fe80::%1/64"}, id="[P-01] zone"),
        pytest.param({"name": "n", "gateway": 5}, id="[P-03] number for address"),
        pytest.param({"name": "n", "capabilities": {"mac": 1}}, id="[RC-08] capability not bool"),
    ],
)
def test_schema_and_decoder_refuse(raw):
    assert list(VALIDATOR.iter_errors(raw)) != []
    with pytest.raises(CniError):
        decode_config(raw, Ranges)


def test_type_without_a_schema():
    """[RC-08] A type that has no JSON form is found when the schema is made."""

    class Wrong(PluginConfig, frozen=True):
        network: Network | None = None

    with pytest.raises(TypeError, match=r"addresses\.Network.* is not supported"):
        config_schema("wrong", Wrong)


def test_described() -> None:
    """Each key with its path, type, default and the text below the field."""
    keys = {one.path: one for one in described(Ranges)}
    assert keys["subnet"] == (
        "subnet", "prefix", "null", "Where the addresses lie.", False, False
    )  # fmt: skip
    assert keys["gateway"].description == ""
    assert keys["sets"].type == "list of list of object"
    assert keys["sets[][].first"] == (
        "sets[][].first", "address", "", "The first one.", True, False
    )  # fmt: skip
    assert keys["name"].shared
    assert keys["dns.domain"].shared
    assert keys["ipam.type"].description
    assert keys["capabilities"].type == "object of bool"


def test_descriptions_in_the_schema() -> None:
    definitions = SCHEMA["$defs"]
    assert (
        definitions["Ranges"]["properties"]["subnet"]["description"] == "Where the addresses lie."
    )
    assert definitions["Part"]["properties"]["first"]["description"] == "The first one."
    assert "description" not in definitions["Ranges"]["properties"]["gateway"]
