"""The page in a real browser: headless Chromium, one for all tests, in front of a real admin port.

Where Chromium is not installed these tests are skipped; with ``REQUIRE_CHROMIUM`` set, as CI does, that is an error.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from receipt_actors.admin import watch
from receipt_actors.admin.server import AdminServer
from receipt_actors.domain.addresses import Address
from tests.patience import PATIENCE_SECONDS

from .scripted import ScriptedSystem

FOCUSED_NAME = "document.activeElement.querySelector('.name')?.textContent ?? ''"
HOW_TO_GET_IT = "needs Chromium and its driver: apt-get install chromium chromium-driver"


def launch() -> Chrome:
    """Start a headless Chromium that can reach nothing but this machine."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(HOW_TO_GET_IT)
        pytest.skip(HOW_TO_GET_IT)
    options = ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--lang=en"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # root has none
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(driver))


class Page:
    """The dashboard, as somebody in front of it uses it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self.expected_errors: tuple[str, ...] = ()  #: what the console may tell, such as an answer 401

    def open(self, url: str) -> None:
        self.driver.get(url)

    def leave(self) -> None:
        self.driver.get("about:blank")

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return str(self.script("return document.querySelector(arguments[0])?.textContent ?? ''", css))

    def click(self, css: str) -> None:
        self.find(css).click()

    def script(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until it is so; what the page replaces meanwhile is looked for again."""
        wait = WebDriverWait(
            self.driver, PATIENCE_SECONDS, 0.05, (NoSuchElementException, StaleElementReferenceException)
        )
        return wait.until(lambda _driver: condition(), f"waited for: {what}")

    def until_text(self, css: str, part: str) -> None:
        self.until(lambda: part in self.text(css), f"{css} to say {part!r}, it says {self.text(css)!r}")

    def until_live(self) -> None:
        self.until_text("#link", "live")

    def row(self, name: str) -> WebElement:
        rows = "[...document.querySelectorAll('#tree .row')]"
        row = self.script(f"return {rows}.find((row) => row.children[2].textContent === arguments[0])", name)
        if row is None:
            raise NoSuchElementException(name)
        return row

    def focused_name(self) -> str:
        return str(self.script(f"return {FOCUSED_NAME}"))

    def press_at_once(self, *keys: str) -> str:
        """Press keys, named as in the document, before the page can change; return the name that has the focus."""
        return str(
            self.script(
                "for (const key of arguments) {"
                "  document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));"
                "}"
                f"return {FOCUSED_NAME}",
                *keys,
            )
        )

    def resize(self, width: int, height: int = 900) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def prefer(self, colors: str) -> None:
        """Let the system's theme be ``light`` or ``dark``."""
        features = [
            {"name": "prefers-color-scheme", "value": colors},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def errors(self) -> list[str]:
        """Return what the console has told since it was last asked: errors, and violations of the CSP."""
        lines = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [line for line in lines if not any(expected in line for expected in self.expected_errors)]

    def requested_urls(self) -> set[str]:
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {
            entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"
        }


@pytest.fixture(scope="session")
def driver() -> Iterator[Chrome]:
    driver = launch()
    yield driver
    driver.quit()


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> ScriptedSystem:
    """Return a system that is looked at often, lest tests wait for the next second."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(watch, "FRESH_SECONDS", 0.05)
    return ScriptedSystem()


@pytest.fixture
def server(system: ScriptedSystem) -> Iterator[AdminServer]:
    with AdminServer(Address("127.0.0.1", 0)) as server:
        server.serve(system)
        yield server


@pytest.fixture
def page(driver: Chrome, server: AdminServer) -> Iterator[Page]:
    """Return a page that is not open yet. At the end, while the server is there, its console has told of nothing."""
    page = Page(driver)
    page.resize(1280)
    page.prefer("light")
    page.errors()
    page.requested_urls()
    yield page
    errors = page.errors()
    page.leave()
    assert errors == []


@pytest.fixture
def live(page: Page, server: AdminServer) -> Page:
    page.open(server.url)
    page.until_live()
    return page
