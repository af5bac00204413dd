"""The load generator over gRPC: as load.py, each connection an HTTP/2 channel of its own with one call at a time.

grpc's client costs more than load.py's own HTTP/1.1, so these figures are lower bounds sooner: look at `generator`.
"""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections import Counter
from time import perf_counter
from typing import TypeAlias

import grpc

from benchmarks.calls import Target
from benchmarks.load import SAMPLE_CHARACTERS, TIMEOUT_S, Round, measured

Send: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
METHOD = "/lf.a2a.v1.A2AService/SendMessage"
# Channels to one place share a connection, unless they are told not to.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


async def run(target: Target, *, connections: int, seconds: float, warm_up: float, server: int | None = None) -> Round:
    """Load for `warm_up` + `seconds`; as `load.run`."""
    load = _Load(target)
    workers = [asyncio.create_task(load.work()) for _ in range(connections)]
    try:
        return await measured(load, seconds, warm_up, server)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def one(target: Target) -> str | None:
    """One call on a channel of its own; what was wrong with the answer, None if nothing was."""
    async with grpc.aio.insecure_channel(f"{target.host}:{target.port}", options=OPTIONS) as channel:
        return await _call(channel.unary_unary(METHOD), target)


class _Load:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.latencies = array("d")
        self.errors: Counter[str] = Counter()
        self.first_error: str | None = None

    async def work(self) -> None:
        where = f"{self.target.host}:{self.target.port}"
        async with grpc.aio.insecure_channel(where, options=OPTIONS) as channel:
            send: Send = channel.unary_unary(METHOD)
            while True:
                began = perf_counter()
                wrong = await _call(send, self.target)
                if wrong is None:
                    self.latencies.append(perf_counter() - began)
                else:
                    self.errors[wrong.partition(":")[0]] += 1
                    self.first_error = self.first_error or wrong[:SAMPLE_CHARACTERS]


async def _call(send: Send, target: Target) -> str | None:
    number, body = target.body()
    metadata = [("a2a-version", "1.0")]
    if target.credential is not None:
        metadata.append(("authorization", f"Bearer {target.credential}"))
    try:
        answer = await send(body, metadata=metadata, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        with contextlib.suppress(AttributeError):
            return f"{error.code().name}: {error.details()}"
        raise
    return None if target.call.expect % {b"n": number} in answer else "expected text missing"
