"""The picture of the dashboard, of a real system under load: ``python -m tests.admin.screenshots FOLDER``.

Starts ``receipt-actors start --processes 2 --admin ...`` on the embedded backend with a simulated App Store, sends it
messages of every kind, kills a worker, and takes ``dashboard.png``, the picture of the manual, in Chromium. Needs the
extra ``test``, ``pillow``, Chromium and its driver; a font that looks like a screen's (``fonts-inter``) is welcome.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from PIL import Image

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import make_scenario
from receipt_actors.sqlite import EmbeddedQueues
from receipt_actors.telemetry.overview import Overview
from tests.ports import reserved_port

from .browser.conftest import Page, launch

BUNDLE_ID = "com.example.game"
DOC_WIDTH = 1440
DOC_HEIGHT = 1250
MOST_COLORS = 256  #: of a picture: it is made of few, and a fifth of the size


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(requests.ConnectionError):
            if requests.get(url, timeout=10).ok:
                return
        time.sleep(0.2)
    raise SystemExit(f"{url} never was ready")


@contextmanager
def feeding(database: Path, a_second: float) -> Iterator[None]:
    """Send messages of every kind, about so many a second, now more, now less."""
    over = threading.Event()

    def feed() -> None:
        queues = EmbeddedQueues(database)
        rng = random.Random(1)
        for seed in range(1_000_000):
            messages = [
                OutgoingMessage(message.body, message.attributes)
                for message in make_scenario(200, seed, BUNDLE_ID, "ResultsSQS").messages
            ]
            for start in range(0, len(messages), 10):
                if over.wait(10 / a_second * rng.uniform(0.4, 1.6)):
                    queues.close()
                    return
                queues.send("ReceiptsSQS", messages[start : start + 10])

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def take(page: Page, path: Path) -> None:
    page.prefer("dark")
    page.resize(DOC_WIDTH, DOC_HEIGHT)
    looks = page.text("#figures-at")
    page.until(lambda: page.text("#figures-at") != looks, "the next sample")
    page.driver.save_screenshot(str(path))
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(MOST_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=75, help="how long the system runs before")
    parser.add_argument("--rate", type=float, default=120, help="messages a second")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with (
        reserved_port() as port,
        tempfile.TemporaryDirectory() as folder,
        SimulatedAppStore(latency_seconds=0.12) as store,
    ):
        address = f"127.0.0.1:{port}"
        database = Path(folder) / "receipts.db"
        command = [sys.executable, "-m", "receipt_actors", "start", "--processes", "2", "--admin", address]
        command += ["--database", str(database), "--bundle-ids", BUNDLE_ID, "--log-level", "ERROR"]
        command += ["--app-store-url", store.url]
        program = subprocess.Popen(command)
        try:
            wait_until_ready(f"http://{address}/readyz")
            with feeding(database, arguments.rate):
                show(f"http://{address}/", arguments.folder, arguments.seconds)
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(60)


def show(url: str, folder: Path, seconds: float) -> None:
    time.sleep(seconds * 0.6)
    overview = Overview.from_json(requests.get(f"{url}api/overview", timeout=10).json())
    os.kill(overview.processes[-1].pid, signal.SIGKILL)
    time.sleep(seconds * 0.4)
    page = Page(launch())
    try:
        page.open(url)
        page.until_live()
        page.click("input[name=span][value='60'] + span")
        page.until(lambda: page.text("#p99") not in ("", "–"), "latencies")
        page.until(lambda: page.all("#tree .row"), "the tree")
        page.script("scrollTo(0, 0)")
        time.sleep(6)  # until rates are known
        take(page, folder / "dashboard.png")
        print(*page.errors(), sep="\n")  # noqa: T201
    finally:
        page.driver.quit()


if __name__ == "__main__":
    main()
