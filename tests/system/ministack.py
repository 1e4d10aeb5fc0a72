"""MiniStack: SQS and DynamoDB, emulated by a process of its own (package ``ministack``, which not everybody has)."""

from __future__ import annotations

import importlib.util
from urllib.error import URLError
from urllib.request import urlopen

from .processes import Programs

IS_INSTALLED = importlib.util.find_spec("ministack") is not None
WHY_NOT = "MiniStack is not installed (pip install ministack)"


class MiniStack:
    def __init__(self, programs: Programs) -> None:
        port = programs.reserve_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": "unix:///nowhere",  # it would look for containers of its own to end
            "LOG_LEVEL": "WARNING",
        }
        program = programs.start(module="ministack", environment=environment)
        program.wait_until(self._is_ready, "MiniStack answers")

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/_ministack/health", timeout=5):
                return True
        except (URLError, OSError):
            return False
