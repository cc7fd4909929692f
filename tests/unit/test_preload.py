"""What a worker may need is loaded before it acts in a caller's root, which has no modules."""

from __future__ import annotations

import json
import subprocess
import sys

# In a process of its own: what the test run has loaded says nothing.
SCAN = """
import ast, json, sys
from importlib.util import find_spec, resolve_name
from pathlib import Path
from cni_py.server import preload, worker
preload.load()
# What only the command line and the server's parent do.
apart = ("cni_py.cli", "cni_py.server", "cni_py.runtime")
missing = []
for name, module in sorted(sys.modules.items()):
    if not name.startswith("cni_py") or name.startswith(apart):
        continue
    tree = ast.parse(Path(module.__file__).read_text())
    functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
    for one in (found for function in functions for found in ast.walk(function)):
        wanted = []
        if isinstance(one, ast.Import):
            wanted = [alias.name for alias in one.names]
        elif isinstance(one, ast.ImportFrom):
            base = resolve_name("." * one.level + (one.module or ""), module.__package__)
            within = [f"{base}.{alias.name}" for alias in one.names]
            wanted = [base, *(each for each in within if has_module(each))]
        missing += [f"{name}:{one.lineno} {each}" for each in wanted if each not in sys.modules]
print(json.dumps(missing))
"""
HAS_MODULE = """
def has_module(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
"""


def test_nothing_is_imported_later() -> None:
    program = SCAN.replace("missing = []", HAS_MODULE + "missing = []", 1)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
