"""Wall clocks that are wrong: ``wall_clock.c``, built here, in the environment of a program and of all that it starts.

What waits until a time of the wall clock (``sem_timedwait``, and the like) asks the kernel, whose clock is right.
CPython waits by the monotonic clock wherever there is a way.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("wall_clock.c")


class WallClock:
    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        library = folder / "wall_clock.so"
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
        file = folder / f"wall-clock-{name}"
        file.write_bytes(struct.pack("q", 0))
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(file)}
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)

    def set_ahead(self, seconds: float) -> None:
        self._memory[:] = struct.pack("q", round(seconds))
