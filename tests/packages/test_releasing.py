"""The version comes from the tag, and CHANGELOG.md agrees: docs/releasing.md."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.host import ROOT

FILES = ("release/check_release.py", "pyproject.toml")


class Repository:
    """A repository with what the version is made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done
        return done.stdout.strip() + done.stderr.strip()

    def commit(self, heading: str) -> None:
        (self.folder / "CHANGELOG.md").write_text(f"# Changes\n\n## {heading}\n\n- Something.\n")
        if not (self.folder / ".git").exists():
            self.run("git", "init", "--quiet")
        self.run("git", "add", ".")
        who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
        self.run("git", *who, "commit", "--quiet", "--allow-empty", "--message", heading)

    def tag(self, name: str) -> None:
        who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
        self.run("git", *who, "tag", "--annotate", "--message", name, name)

    def check(self, *version: str) -> str:
        return self.run(sys.executable, "release/check_release.py", *version, check=False)

    def version(self) -> str:
        code = "from scikit_build_core.metadata.setuptools_scm import dynamic_metadata as version"
        return self.run(sys.executable, "-W", "ignore", "-c", f"{code}; print(version('version'))")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_this_checkout_agrees() -> None:
    script = ROOT / "release" / "check_release.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_versions(repository: Repository) -> None:
    """By tag, after one, without any, and without git."""
    (repository.folder / "CHANGELOG.md").write_text("## 1.2.0 (unreleased)\n")
    assert repository.version() == "0.1.dev0"
    repository.commit("1.2.0 (unreleased)")
    assert repository.version().startswith("0.1.dev1+g")
    repository.commit("1.2.0 (2026-12-01)")
    repository.tag("v1.2.0")
    assert repository.version() == "1.2.0"
    repository.commit("1.2.1 (unreleased)")
    assert repository.version().startswith("1.2.1.dev1+g")
    shallow = repository.folder / "shallow"
    repository.run(
        "git", "clone", "--quiet", "--depth", "1", f"file://{repository.folder}", "shallow"
    )
    assert Repository(shallow).version().startswith("0.1.dev1+g")


@pytest.mark.parametrize(
    ("heading", "said"),
    [
        ("1.2.0 (2026-12-01)", ""),
        ("1.2.0 (unreleased)", "v1.2.0 is here, and CHANGELOG.md begins with 1.2.0 (unreleased)"),
        ("1.3.0 (2026-12-01)", "v1.2.0 is here, and CHANGELOG.md begins with 1.3.0 (2026-12-01)"),
        ("Next", "CHANGELOG.md: its first section is not"),
        ("1.x (unreleased)", "CHANGELOG.md: its first section is not"),
    ],
)
def test_at_a_tag(repository: Repository, heading: str, said: str) -> None:
    repository.commit(heading)
    repository.tag("v1.2.0")
    answer = repository.check("1.2.0")
    assert said in answer
    assert bool(said) == bool(answer)


def test_changes_that_are_not_committed(repository: Repository) -> None:
    repository.commit("1.2.0 (2026-12-01)")
    repository.tag("v1.2.0")
    assert "1.2.1.dev0 was built: commit what has changed" in repository.check("1.2.1.dev0")


@pytest.mark.parametrize(
    ("heading", "agrees"),
    [
        ("1.3.0 (unreleased)", True),
        ("1.2.0 (2026-12-01)", True),
        ("1.3.0 (2026-12-01)", True),
        ("1.2.0 (unreleased)", False),
        ("1.1.0 (unreleased)", False),
    ],
)
def test_after_a_tag(repository: Repository, heading: str, agrees: bool) -> None:
    repository.commit("1.2.0 (2026-12-01)")
    repository.tag("v1.2.0")
    repository.commit(heading)
    answer = repository.check("1.2.1.dev1+g123")
    assert agrees == (answer == "")


def test_a_tag_that_is_no_version(repository: Repository) -> None:
    repository.commit("1.2.0 (unreleased)")
    repository.tag("v1-final-really")
    assert "the tag v1-final-really is not v and a version" in repository.check()
