"""The picture of the dashboard, of a scripted system: ``python -m tests.admin.screenshots FOLDER``.

Takes ``dashboard.png``, the picture of the manual, in Chromium. Needs the extra ``test``, ``pillow``, Chromium and its
driver; a font that looks like a screen's (``fonts-inter``) is welcome.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from receipt_actors.admin.server import AdminServer
from receipt_actors.domain.addresses import Address

from .browser.conftest import Page, launch
from .browser.scripted import ScriptedSystem, incidents

WIDTH, HEIGHT = 1440, 1250
SECONDS = 75  #: until the curves are full; the system is looked at once a second
MOST_COLORS = 256  #: of a picture: it is made of few, and a fifth of the size


def main(folder: Path) -> None:
    system = ScriptedSystem()
    system.processes, system.restarts, system.incidents = 2, 1, incidents()
    folder.mkdir(parents=True, exist_ok=True)
    page = Page(launch())
    with AdminServer(Address("127.0.0.1", 0)) as server:
        server.serve(system)
        page.open(server.url)
        page.until_live()
        page.click("input[name=span][value='60'] + span")
        looks = system.looks
        page.until(lambda: system.looks - looks >= SECONDS, "full curves")
        page.prefer("dark")
        page.resize(WIDTH, HEIGHT)
        path = folder / "dashboard.png"
        page.driver.save_screenshot(str(path))
        page.driver.quit()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(MOST_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
