"""Run a command in several processes that are one to whoever measures it: ``python several.py N COMMAND...``.

SIGTERM is passed on, and the exit code is the first that is not 0.
"""

from __future__ import annotations

import signal
import subprocess
import sys


def main() -> int:
    processes = [subprocess.Popen(sys.argv[2:]) for _ in range(int(sys.argv[1]))]

    def pass_on(*_: object) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    codes = [process.wait() for process in processes]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
