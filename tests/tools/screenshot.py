"""screenshot.py FILE: the picture in docs/commands/graph.md, of a host with some of everything.

    PYTHONPATH=tests .venv/bin/python tests/tools/screenshot.py docs/images/graph.png

As root, with Debian's chromium, chromium-driver and optipng; its fonts-inter is the face that is in
the picture there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fixtures.browser import browser
from fixtures.furnished import WEB, furnished
from fixtures.host import BIN

_SECONDS = 20
_CHOSEN = "document.querySelector(`.node[aria-label^='container ${arguments[0]}']`)"


def main() -> None:
    """Draw the host, choose a container, and write what is seen."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, furnished() as made:
        page = Path(folder, "page.html")
        draw = f"hostname node-1 && exec {BIN}/cni-py graph --format html"
        page.write_text(made.host.run("unshare", "--uts", "sh", "-c", draw).stdout)
        with browser(Path(folder, "profile")) as chrome:
            chrome.set_window_size(1280, 830)
            chrome.get(page.as_uri())
            deadline = time.monotonic() + _SECONDS
            while not (box := chrome.execute_script(f"return {_CHOSEN}", WEB)):
                if time.monotonic() > deadline:
                    sys.exit("screenshot: the map shows no container")
            box.click()
            # The move to the new places, and the colours' way to theirs.
            time.sleep(1)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(chrome.get_screenshot_as_png())
    subprocess.run(["optipng", "-quiet", target], check=True)


if __name__ == "__main__":
    main()
