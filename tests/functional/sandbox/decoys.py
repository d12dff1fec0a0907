"""What an agent might want to reach, at every address and name of a world of its own; and a broker.

    decoys.py DIRECTORY     in a network namespace (tests/support/outworld.py)

Each says that it was reached, to whoever reaches it and as a line in DIRECTORY/reached.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import cast

from agentorch.broker import client

OPEN_PORTS = (80, 443, 8443)
DNS = 53
UPSTREAM = 9443
ABSTRACT = "\0agentorch-decoy"
PATHS = ("/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private")
MESSAGE = {
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "content": [{"type": "text", "text": "reached"}],
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Decoys:
    """All of them, and where they write down who came."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = (directory / "reached").open("a", buffering=1)

    def note(self, what: str) -> None:
        self._log.write(f"{what}\n")

    async def tcp(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("sockname")
        self.note(f"tcp {name[1]} {name[0]}" if isinstance(name, tuple) else f"unix {name!r}")
        writer.write(b"reached\n")
        writer.close()

    async def upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A model provider that answers whatever it is asked, once a connection."""
        head = await reader.read(1 << 16)
        self.note("upstream " + " ".join(head.decode().split()[:2]))
        body = json.dumps(MESSAGE).encode()
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(
            f"HTTP/1.1 200 reached\r\n{fields}\r\nConnection: close\r\n\r\n".encode() + body
        )
        await writer.drain()
        writer.close()

    async def open(self) -> None:
        for port in (*OPEN_PORTS, DNS):
            await asyncio.start_server(self.tcp, None, port)
        await asyncio.start_server(self.upstream, "127.0.0.1", UPSTREAM)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: Nameserver(self), ("0.0.0.0", DNS))
        other = self.directory / "other"
        other.mkdir()
        other.chmod(0o755)
        for path in (ABSTRACT, *PATHS, str(other / "socket")):
            if path.startswith("/"):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            await asyncio.start_unix_server(self.tcp, path)
            if path.startswith("/"):
                Path(path).chmod(0o666)


class Nameserver(asyncio.DatagramProtocol):
    """Answers everybody."""

    def __init__(self, decoys: Decoys) -> None:
        self._decoys = decoys

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        self._decoys.note(f"udp {len(data)}")
        self._transport.sendto(b"reached\n", addr)


async def main(directory: Path) -> None:
    await Decoys(directory).open()
    environment = {
        "PATH": os.environ["PATH"],
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{UPSTREAM}",
        "ANTHROPIC_API_KEY": "key-of-the-decoy",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{UPSTREAM}/v1",
        "OPENAI_API_KEY": "other-key-of-the-decoy",
        "AGENTORCH_STATE_DIR": str(directory / "state"),
        "AGENTORCH_CONFIG_DIR": str(directory / "etc"),
    }
    with client.running(directory / "broker", environment) as path:
        path.chmod(0o666)
        for above in (directory, path.parent):
            above.chmod(0o755)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
