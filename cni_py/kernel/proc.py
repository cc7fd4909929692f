"""What proc(5) says of another process."""

from __future__ import annotations


def described(pid: int) -> str:
    """`process N (name)`, and whether it is stopped. Raises OSError: it is gone."""
    with open(f"/proc/{pid}/stat") as file:
        # The name may have parentheses itself.
        name, _, rest = file.read().partition("(")[2].rpartition(") ")
    stopped = ", which is stopped" if rest[:1] in ("T", "t") else ""
    return f"process {pid} ({name}){stopped}"
