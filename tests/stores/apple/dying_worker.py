"""A process of ``SignedDataProcess`` that verifies nothing: it says what it got, and dies of some of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

connection = socket.socket(fileno=int(sys.argv[1]))
lines = connection.makefile("rb")
lines.readline()
connection.sendall(b"[]\n")
for line in lines:
    texts = [text for _, text in json.loads(line)]
    if "die" in texts:
        os.kill(os.getpid(), signal.SIGKILL)
    connection.sendall(json.dumps([{"transactionId": text} for text in texts]).encode() + b"\n")
