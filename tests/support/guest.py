"""Runs commands for the test that started this virtual machine; baked into its disk.

They come by a virtio port, as messages: a length of four bytes, then JSON. One at a time: its
number, argv, environment, stdin; back go the same number, the exit code, stdout and stderr, bytes
as base64. The first message after a boot is {"up": true}, which has no number.
"""

import base64
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

PORT = "agentorch"
PORTS = Path("/sys/class/virtio-ports")


def read(port: io.RawIOBase) -> dict[str, Any]:
    """The next message; whole, however slowly it comes."""
    length = int.from_bytes(_exactly(port, 4), "big")
    message: dict[str, Any] = json.loads(_exactly(port, length))
    return message


def _exactly(port: io.RawIOBase, length: int) -> bytes:
    content = b""
    while len(content) < length:
        more = port.read(length - len(content))
        if not more:
            raise EOFError
        content += more
    return content


def encoded(message: dict[str, Any]) -> bytes:
    """Return a message as it goes through the port. Pure."""
    content = json.dumps(message).encode()
    return len(content).to_bytes(4, "big") + content


def write(port: io.RawIOBase, message: dict[str, Any]) -> None:
    """Send a message."""
    rest = memoryview(encoded(message))
    while rest:
        rest = rest[port.write(rest) or 0 :]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Runs what was asked."""
    try:
        ran = subprocess.run(
            asked["argv"],
            input=base64.b64decode(asked["stdin"]),
            env=asked["environment"],
            capture_output=True,
            cwd="/",
            check=False,
            timeout=asked["timeout_s"],
        )
    except subprocess.TimeoutExpired:
        return {"timeout": True}
    except OSError as problem:
        return {
            "code": 127,
            "stdout": "",
            "stderr": base64.b64encode(str(problem).encode()).decode(),
        }
    return {
        "code": ran.returncode,
        "stdout": base64.b64encode(ran.stdout).decode(),
        "stderr": base64.b64encode(ran.stderr).decode(),
    }


def serve(port: io.RawIOBase) -> None:
    """Say that the machine is up, then answer what comes, each with the number that it has."""
    write(port, {"up": True})
    while True:
        asked = read(port)
        write(port, answer(asked) | {"number": asked["number"]})


def _device() -> str:
    """The port of our name; udev, which would make a link for it, starts late."""
    names = PORTS.glob("*/name")
    return next(f"/dev/{name.parent.name}" for name in names if name.read_text().strip() == PORT)


if __name__ == "__main__":
    with os.fdopen(os.open(_device(), os.O_RDWR | os.O_CLOEXEC), "r+b", buffering=0) as port:
        serve(port)
