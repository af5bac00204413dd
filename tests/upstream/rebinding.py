"""A name server that changes its mind, in a network namespace of its own; run by test_egress.py as root.

`unshare --net --mount python rebinding.py`: lookups of `rebind.test` are answered in turn with 203.0.113.10 (an
address of this namespace, and allowed here) and with 127.0.0.1, where a canary listens on the same port.
Prints how often each was reached, as `name=number` words.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gateway.model.errors import GatewayError, Reason
from gateway.upstream.address import EgressRules
from gateway.upstream.egress import Egress

PORT = 8080
TRIES = 300
ADDRESSES = ("203.0.113.10", "127.0.0.1")


class Names(asyncio.DatagramProtocol):
    """Answers A queries, alternately, with a time to live of 0; everything else has no records."""

    lookups = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # as asyncio's documentation promises

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 1
        kind = struct.unpack(">H", data[end : end + 2])[0]
        records = b""
        if kind == 1:
            address = socket.inet_aton(ADDRESSES[self.lookups % 2])
            records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + address
            self.lookups += 1
        header = data[:2] + struct.pack(">HHHHH", 0x8180, 1, bool(records), 0, 0)
        self.transport.sendto(header + data[12 : end + 4] + records, addr)


def prepare() -> None:
    for command in ("ip link set lo up", "ip addr add 203.0.113.10/32 dev lo"):
        subprocess.run(command.split(), check=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("resolv.conf", "nameserver 127.0.0.53\n"), ("nsswitch.conf", "hosts: dns\n")):
            file = Path(folder, name)
            file.write_text(text)
            subprocess.run(["mount", "--bind", str(file), f"/etc/{name}"], check=True)


async def main() -> None:
    reached = {"canary": 0, "public": 0}

    async def serve(which: str, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached[which] += 1
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(Names, local_addr=("127.0.0.53", 53))
    servers = [
        await asyncio.start_server(lambda r, w: serve("canary", r, w), "127.0.0.1", PORT),
        await asyncio.start_server(lambda r, w: serve("public", r, w), "203.0.113.10", PORT),
    ]
    refused = 0
    for _ in range(TRIES):
        try:
            # a new one each time: no cached names
            async with Egress(EgressRules(allow=("203.0.113.10",))) as egress:
                await egress.post(f"http://rebind.test:{PORT}/", b"", {}, timeout=5)
        except GatewayError as error:
            if error.reason is not Reason.EGRESS_REFUSED:
                raise
            refused += 1
    for server in servers:
        server.close()
    transport.close()
    print(f"lookups={names.lookups} refused={refused} public={reached['public']} canary={reached['canary']}")


if __name__ == "__main__":
    prepare()
    asyncio.run(main())
