"""The documents name what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module

import jsonschema
import pytest

from cni_py.skel import EXECUTABLES
from cni_py.spec.schema import config_schema, described
from fixtures.host import ROOT

# The protocol's own, which the introduction names for all plugins.
COMMON = {"cniVersion", "name", "type", "capabilities", "dns", "ipam", "args", "runtimeConfig"}


def schema_of(plugin: str) -> dict:
    return config_schema(plugin, import_module(EXECUTABLES[plugin].module).Config)


@pytest.mark.parametrize("plugin", EXECUTABLES)
def test_every_key_is_documented(plugin: str) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    section = text.split(f"\n## {plugin}\n")[1].split("\n## ")[0]
    words = set(re.findall(r"[A-Za-z0-9]+", section))
    schema = schema_of(plugin)
    definitions = schema["$defs"]
    keys = set(definitions["Config" if "Config" in definitions else "PluginConfig"]["properties"])
    if "_Ipam" in definitions:
        keys |= set(definitions["_Ipam"]["properties"])
    assert keys - COMMON - words == set()


@pytest.mark.parametrize("plugin", EXECUTABLES)
def test_every_key_has_a_description(plugin: str) -> None:
    """It stands below the field in the type's source."""
    keys = list(described(import_module(EXECUTABLES[plugin].module).Config))
    assert keys
    assert [one.path for one in keys if not one.description] == []


@pytest.mark.parametrize("plugin", EXECUTABLES)
def test_schemas_in_conf_are_current(plugin: str) -> None:
    """`make schema` writes them."""
    stored = json.loads((ROOT / "conf" / "schema" / f"{plugin}.json").read_text())
    assert stored == schema_of(plugin)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").glob("*.conflist")), ids=lambda one: one.name
)
def test_examples_fit_their_schemas(path) -> None:
    conflist = json.loads(path.read_text())
    for plugin in conflist["plugins"]:
        config = plugin | {key: conflist[key] for key in ("cniVersion", "name")}
        jsonschema.Draft202012Validator(schema_of(plugin["type"])).validate(config)


def test_schema_refuses_a_wrong_type() -> None:
    validator = jsonschema.Draft202012Validator(schema_of("bridge"))
    assert not validator.is_valid({"name": "a", "type": "bridge", "mtu": "1500"})
    assert validator.is_valid({"name": "a", "type": "bridge", "mtu": 1500, "unknown": 1})


def test_mentioned_files_exist() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_every_key_of_the_reference_is_tested() -> None:
    """docs/compatibility.md is current, and has no key without a test."""
    check = [sys.executable, "tests/tools/compatibility.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0
