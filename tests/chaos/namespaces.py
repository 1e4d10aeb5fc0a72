"""Hosts of their own on this machine: network namespaces of Linux, each with a cable to us that can be pulled.

What is sent while it is out is lost as in any network: connections hang, and what TCP still has to say is said when the
cable is back, though whoever had sent it may have given up long before.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Self

_numbers: Iterator[int] = itertools.count(os.getpid() * 4 % 16000, 1)  # of networks of four addresses each


class Namespace:
    """One host; a context manager. ``within`` starts a program there; from there we have ``address``."""

    def __init__(self, name: str) -> None:
        number = next(_numbers)
        self._name = f"receipts-{os.getpid()}-{name}"
        self._cable = f"rc{number}"
        network = f"10.213.{number // 64 % 256}."
        host = number % 64 * 4
        self.address, self._its_address = f"{network}{host + 1}", f"{network}{host + 2}"
        self.within: Sequence[str] = ("ip", "netns", "exec", self._name)

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        try:
            self._lay_cable()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._cable)
        _ip("netns", "del", self._name)

    def unplug(self) -> None:
        _ip("link", "set", self._cable, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self._cable, "up")

    def _lay_cable(self) -> None:
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "cable", "netns", self._name)
        _ip("addr", "add", f"{self.address}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        _ip("-n", self._name, "addr", "add", f"{self._its_address}/30", "dev", "cable")
        _ip("-n", self._name, "link", "set", "cable", "up")
        _ip("-n", self._name, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _can_have_namespaces() -> bool:
    if shutil.which("ip") is None:
        return False
    try:
        with Namespace("try"):
            return True
    except subprocess.CalledProcessError:
        return False


CAN_HAVE_NAMESPACES = _can_have_namespaces()
