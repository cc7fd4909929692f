"""The page of `cni-py graph --format html` in a browser."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.keys import Keys

from cni_py.cli.drawing.page import page
from cni_py.cli.drawing.picture import picture
from fixtures.browser import asked_for, browser, complaints
from fixtures.furnished import WEB
from fixtures.host import BIN
from fixtures.pictures import HOSTILE, hostile, many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

_SECONDS = 20


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def shown(chrome, tmp_path) -> Iterator[Callable[[str], Chrome]]:
    """Shows a page; at the end nothing else was asked for, and nothing complained of."""
    path: Path = tmp_path / "page.html"

    def show(text: str) -> Chrome:
        path.write_text(text)
        chrome.get(path.as_uri())
        return chrome

    yield show
    assert asked_for(chrome) == [path.as_uri()]
    assert complaints(chrome) == []


@pytest.fixture(scope="module")
def real(looked_at) -> str:
    """The page of the furnished host."""
    return looked_at.host.run(str(BIN / "cni-py"), "graph", "--format", "html").stdout


def until(chrome: Chrome, script: str, *arguments: Any) -> Any:
    """What the script gives, as soon as that is true."""
    deadline = time.monotonic() + _SECONDS
    while not (found := chrome.execute_script(f"return {script}", *arguments)):
        assert time.monotonic() < deadline, script
    return found


def texts(chrome: Chrome, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)"
    found: list[str] = chrome.execute_script(script, selector)
    return found


def click(chrome: Chrome, label: str) -> None:
    """Click the node whose name for screen readers begins so."""
    until(chrome, "document.querySelector(`.node[aria-label^='${arguments[0]}']`)", label).click()


def test_map_has_everything(shown, real):
    chrome = shown(real)
    until(chrome, "document.querySelectorAll('.node.box').length === 7")
    assert any(text.startswith("up0\n192.0.2.7/24") for text in texts(chrome, ".node.uplink"))
    hubs = texts(chrome, ".node.hub")
    assert any(
        "cni2" in text and "10.87.0.1/16" in text and "network full" in text for text in hubs
    )
    assert any("10.40.0.0/28: 5 of 13, 38%" in text for text in hubs)
    (web,) = [text for text in texts(chrome, ".node.box") if WEB[:12] in text]
    for text in ("8080→80/tcp", "eth0", "10.87.0.2/16", "eth1", "10.40.0.2/28"):
        assert text in web
    assert len(texts(chrome, ".node.port")) == 6
    assert len(chrome.find_elements("css selector", "#wires path.leg")) >= 7


def test_click_tells_all_and_lights_the_path(shown, real):
    chrome = shown(real)
    click(chrome, f"container {WEB}")
    told = until(chrome, "document.querySelector('#details').innerText")
    for text in (
        WEB,
        "eth1 on backend",
        "8080→80/tcp",
        "net.ipv4.conf.eth0.arp_filter = 1",
        "8 Mbit/s",
    ):
        assert text in told, text
    until(chrome, "document.querySelector('.node.box.lit')")
    assert [text.split("\n")[0] for text in texts(chrome, ".node.box.lit")] == [WEB[:12]]
    assert {text.split("\n")[0] for text in texts(chrome, ".node.hub.lit")} == {"cni2", "backend0"}
    assert len(texts(chrome, ".node.port.lit")) == 2
    # A step of the path is a way to it.
    script = (
        "[...document.querySelectorAll('.path button')].find((one) => one.innerText === 'cni2')"
    )
    until(chrome, script).click()
    until(chrome, "document.querySelector('#details h2').innerText === 'cni2'")
    until(chrome, "document.querySelectorAll('.node.box.lit').length === 2")
    chrome.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(
        chrome,
        "!document.querySelector('main.open') && !document.querySelector('[aria-pressed=true]')",
    )


def test_search(shown, real):
    chrome = shown(real)
    until(chrome, "document.querySelectorAll('.node.box').length === 7")
    chrome.find_element("css selector", "body").send_keys("/")
    chrome.switch_to.active_element.send_keys("10.40.0.3")
    until(chrome, "document.querySelectorAll('.node.box').length === 1")
    assert texts(chrome, "#found") == ["1 of 7"]
    assert texts(chrome, ".node.box")[0].startswith("db-0")
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    until(chrome, "document.querySelector('#details h2')?.innerText === 'db-0'")
    chrome.find_element("css selector", "#search").send_keys(Keys.ESCAPE)
    until(chrome, "document.querySelectorAll('.node.box').length === 7")


def test_keyboard(shown, real):
    chrome = shown(real)
    click(chrome, f"container {WEB}")
    until(chrome, "document.activeElement.classList.contains('box')")
    for key, kind in (
        (Keys.ARROW_LEFT, "port"),
        (Keys.ARROW_LEFT, "hub"),
        (Keys.ARROW_LEFT, "uplink"),
    ):
        chrome.switch_to.active_element.send_keys(key)
        until(chrome, "document.activeElement.classList.contains(arguments[0])", kind)
    for key, kind in (
        (Keys.ARROW_RIGHT, "hub"),
        (Keys.ARROW_RIGHT, "port"),
        (Keys.ARROW_RIGHT, "box"),
    ):
        chrome.switch_to.active_element.send_keys(key)
        until(chrome, "document.activeElement.classList.contains(arguments[0])", kind)
    before = chrome.execute_script("return document.activeElement.dataset.id")
    chrome.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    until(chrome, "document.activeElement.dataset.id !== arguments[0]", before)
    until(chrome, "document.activeElement.classList.contains('box')")


def test_tables_and_themes(shown, real):
    chrome = shown(real)
    tabs = {text.split()[0]: text.split()[-1] for text in texts(chrome, "#tabs a")}
    assert tabs == {
        "Map": "Map",
        "Containers": "8",
        "Ports": "2",
        "Addresses": "4",
        "Problems": "2",
    }
    chrome.find_element("css selector", "a[href='#problems']").click()
    assert any("eth0 is down" in text for text in texts(chrome, "#problems tbody tr"))
    chrome.find_element("css selector", "#problems tbody tr").click()
    until(chrome, "document.querySelector('main.open')")
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    found = set()
    for name in ("light", "dark"):
        until(chrome, "document.querySelector('#theme')").click()
        until(chrome, f"document.documentElement.dataset.theme === '{name}'")
        found.add(chrome.execute_script(f"return {colour}"))
    assert len(found) == 2


def test_a_thousand_containers(shown):
    chrome = shown(page(picture(many(1000), "host", "now")))
    until(chrome, "document.querySelector('.node.more')")
    assert len(chrome.find_elements("css selector", ".node")) < 60
    assert "container999" in texts(chrome, ".node.box")[0]
    chrome.find_element("css selector", "#search").send_keys("10.1.3.0/16")
    until(chrome, "document.querySelectorAll('.node.box').length === 1")
    assert texts(chrome, ".node.box")[0].startswith("container766")
    chrome.find_element("css selector", "#search").send_keys(Keys.ENTER)
    until(chrome, "document.querySelector('#details h2')?.innerText === 'container766'")
    chrome.find_element("css selector", "#search").send_keys(Keys.ESCAPE)
    until(chrome, "document.querySelector('.node.more')").click()
    # All are there to scroll through, and only those in sight are drawn.
    until(chrome, "document.querySelector('#stage').clientHeight > 50000")
    assert len(chrome.find_elements("css selector", ".node.box")) < 60


def test_names_are_never_markup(shown):
    chrome = shown(page(picture(hostile(), "host", "now")))
    until(chrome, "document.querySelectorAll('.node.box').length === arguments[0]", len(HOSTILE))
    boxes = "\n".join(texts(chrome, ".node.box"))
    for name in HOSTILE[:4]:
        assert name in boxes, name
    for index in range(len(HOSTILE)):
        chrome.execute_script("document.querySelectorAll('.node.box')[arguments[0]].click()", index)
        until(chrome, "document.querySelector('#details h2')")
    assert chrome.find_elements("css selector", "img, iframe, object, b > b") == []
    assert len(chrome.find_elements("css selector", "script")) == 2
    rows = "\n".join(chrome.execute_script(
        "return [...document.querySelectorAll('td')].map((one) => one.textContent)"
    ))  # fmt: skip
    assert HOSTILE[0] in rows


def test_page_connects_to_nothing(chrome, tmp_path, real):
    """What got into it nevertheless would be refused by its own policy."""
    path = tmp_path / "page.html"
    added = '<img src="http://192.0.2.1/x"><script>alert(1)</script></main>'
    path.write_text(real.replace("</main>", added))
    chrome.get(path.as_uri())
    until(chrome, "document.querySelectorAll('.node.box').length === 7")
    assert asked_for(chrome) == [path.as_uri()]
    said = complaints(chrome)
    assert len(said) == 2
    assert all("Content Security Policy" in one for one in said)


def test_without_scripts_there_are_tables(chrome, tmp_path, real):
    path = tmp_path / "page.html"
    path.write_text(real)
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chrome.get(path.as_uri())
        rows = [one.text for one in chrome.find_elements("css selector", "#containers tbody tr")]
        assert len(rows) == 8
        assert any(WEB in text and "10.87.0.2/16" in text for text in rows)
        assert not chrome.find_element("css selector", "#map").is_displayed()
        assert not chrome.find_element("css selector", "#search").is_displayed()
        assert chrome.find_element("css selector", "#problems").is_displayed()
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        complaints(chrome)
        asked_for(chrome)
