"""The Erlang node that plays scenarios: compiled and started once, one line of JSON for each scenario and trace."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.patience import PATIENCE_SECONDS

SOURCES = sorted((Path(__file__).parent / "erlang").glob("*.erl"))
OLDEST_RELEASE = 27  #: of Erlang/OTP: the one whose manual we follow


def why_missing() -> str | None:
    if shutil.which("erl") is None or shutil.which("erlc") is None:
        return "needs Erlang/OTP's erl and erlc (Debian: erlang-base)"
    command = ["erl", "-noshell", "-eval", "io:put_chars(erlang:system_info(otp_release)), halt()."]
    release = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_SECONDS).stdout
    if int(release) < OLDEST_RELEASE:
        return f"needs Erlang/OTP {OLDEST_RELEASE} or newer; here is {release}"
    return None


class ErlangPeer:
    def __init__(self, work_dir: Path) -> None:
        subprocess.run(["erlc", "-o", str(work_dir), *map(str, SOURCES)], check=True, timeout=PATIENCE_SECONDS)
        self._node = subprocess.Popen(
            ["erl", "-noinput", "-boot", "start_clean", "-pa", str(work_dir), "-s", "otp_peer", "main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def play(self, scenario: dict[str, Any]) -> Any:
        node = self._node
        assert node.stdin is not None and node.stdout is not None
        node.stdin.write(json.dumps(scenario) + "\n")
        node.stdin.flush()
        line = node.stdout.readline()
        assert line, f"the Erlang node ended: {node.wait()}"
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        node = self._node
        assert node.stdin is not None and node.stdout is not None
        node.stdin.close()  # at the end of its input, it halts
        node.wait(timeout=PATIENCE_SECONDS)
        node.stdout.close()
