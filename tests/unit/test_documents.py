"""The documents name what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jsonschema
import pytest
from tools.man import pages

from cni_py.ipam.delegation import MODULES
from cni_py.skel import EXECUTABLES
from cni_py.spec.list_schema import list_schema
from cni_py.spec.schema import config_schema, described
from fixtures.host import ROOT

DOCUMENTS = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))


def schema_of(plugin: str) -> dict:
    return config_schema(plugin, import_module(EXECUTABLES[plugin].module).Config)


def headings(text: str) -> list[str]:
    """The titles of a document's sections, as they stand."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)


def anchor(heading: str) -> str:
    """What a link to a section names: as GitHub and the site's builder make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", "-")


def test_generated_pages_are_current() -> None:
    """`make pages` writes them: keys, examples, lists of commands and decisions, navigation."""
    check = [sys.executable, "-m", "tools.pages", "--check"]
    env = {"PYTHONPATH": "tests", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(check, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("plugin", EXECUTABLES)
def test_every_plugin_has_a_page(plugin: str) -> None:
    text = (ROOT / "docs" / "plugins" / f"{plugin}.md").read_text()
    wanted = ("Example", "Keys", "What the runtime passes", "What the verbs do", "When it fails")
    assert [one for one in wanted if one not in headings(text)] == []
    has = set(re.findall(r"<!-- (\w+)", text))
    paths = [
        one.path
        for one in described(import_module(EXECUTABLES[plugin].module).Config)
        if not one.shared
    ]
    passed = [one for one in paths if one.startswith(("runtimeConfig", "args"))]
    assert ("keys" in has, "passed" in has) == (len(passed) < len(paths), bool(passed))
    assert "example" in has
    for verb in ("ADD", "CHECK", "DEL", "GC", "STATUS"):
        assert f"| {verb} |" in text


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


LIST = list_schema(
    {name: import_module(one.module).Config for name, one in EXECUTABLES.items()}, MODULES
)


def test_schema_of_a_list_is_current() -> None:
    """`make schema` writes it, and it is one of the dialect that it names."""
    assert json.loads((ROOT / "conf" / "schema" / "conflist.json").read_text()) == LIST
    jsonschema.Draft202012Validator.check_schema(LIST)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").glob("*.conflist")), ids=lambda one: one.name
)
def test_examples_fit_the_schema_of_a_list(path) -> None:
    conflist = json.loads(path.read_text())
    jsonschema.Draft202012Validator(LIST).validate(conflist)
    shared = {key: value for key, value in conflist.items() if key != "plugins"}
    for plugin in conflist["plugins"]:
        jsonschema.Draft202012Validator(LIST).validate(shared | plugin)


def listed(*plugins: dict, **keys: object) -> dict:
    return {"cniVersion": "1.0.0", "name": "n", "plugins": list(plugins)} | keys


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(listed(), id="no plugins"),
        pytest.param(listed({"type": "bridge"}, cniVersion="1.0"), id="version"),
        pytest.param(listed({"type": "bridge"}, nmae="n"), id="key of the list"),
        pytest.param(listed({"type": "bridge", "isGatway": True}), id="key of a plugin"),
        pytest.param(listed({"type": "bridge", "mtu": "1500"}), id="type of a value"),
        pytest.param(listed({"bridge": "cni0"}), id="no type"),
        pytest.param(listed({"type": "bridge", "ipam": {"ranges": []}}), id="no type of ipam"),
        pytest.param(
            listed({"type": "bridge", "ipam": {"type": "host-local", "ranges": [{}]}}), id="ipam"
        ),
        pytest.param(
            listed({"type": "ptp", "ipam": {"type": "static", "adresses": []}}), id="key of ipam"
        ),
        pytest.param({"type": "bridge", "cniVersion": "1.0.0"}, id="single without a name"),
    ],
)
def test_schema_of_a_list_refuses(raw: dict) -> None:
    assert not jsonschema.Draft202012Validator(LIST).is_valid(raw)


def test_schema_of_a_list_leaves_others_alone() -> None:
    """Plugins of others, remarks, and what a runtime or a delegate of others reads."""
    others = (
        {"type": "calico", "anything": {"a": 1}},
        {"type": "bridge", "_remark": "x", "ipam": {"type": "whereabouts", "range": "10.0.0.0/8"}},
        {"type": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": {"x": 1}},
    )
    jsonschema.Draft202012Validator(LIST).validate(listed(*others))


def test_schema_refuses_a_wrong_type() -> None:
    validator = jsonschema.Draft202012Validator(schema_of("bridge"))
    assert not validator.is_valid({"name": "a", "type": "bridge", "mtu": "1500"})
    assert validator.is_valid({"name": "a", "type": "bridge", "mtu": 1500, "unknown": 1})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: str(one.relative_to(ROOT)))
def test_links_lead_somewhere(document) -> None:
    for path, _, section in re.findall(r"\]\(([^)#:]*)(#([^)]*))?\)", document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), path
        if section:
            assert section in map(anchor, headings(target.read_text())), f"{path}#{section}"


def test_every_key_of_the_reference_is_tested() -> None:
    """docs/compatibility.md is current, and has no key without a test."""
    check = [sys.executable, "tests/tools/compatibility.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_manual_pages_are_current() -> None:
    """`make pages` writes them."""
    folder = ROOT / "docs" / "man"
    assert {one.name: one.read_text() for one in folder.iterdir()} == pages()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_manual_pages_are_roff() -> None:
    """groff has nothing to say of them, with all of its warnings."""
    files = sorted((ROOT / "docs" / "man").iterdir())
    check = ["groff", "-man", "-Tascii", "-ww", "-z", *map(str, files)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_manual_pages_are_installed() -> None:
    """Where `man` looks for those of programs in the folder bin beside."""
    folder = Path(sys.prefix, "share", "man", "man1")
    assert (folder / "cni-py-lint.1").read_text() == pages()["cni-py-lint.1"]
