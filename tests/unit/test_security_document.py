"""docs/security.md names tests that there are, and each test of a CVE is in it."""

from __future__ import annotations

import re

from fixtures.host import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()


def test_named_tests_exist() -> None:
    named = re.findall(r"([a-z]+/test_\w+\.py)::(test_\w+)", TEXT)
    assert len(named) > 20
    for path, name in named:
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path}::{name}"


def test_every_test_of_a_cve_is_named() -> None:
    code = (ROOT / "tests" / "security" / "test_cves.py").read_text()
    for name in re.findall(r"def (test_\w+)\(", code):
        assert f"::{name}" in TEXT, name
