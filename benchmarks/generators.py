"""Which load generator a target wants."""

from __future__ import annotations

from benchmarks import load
from benchmarks.calls import Target
from benchmarks.load import Round


async def run(target: Target, *, connections: int, seconds: float, warm_up: float, server: int | None = None) -> Round:
    """As `load.run`."""
    if not target.call.grpc:
        return await load.run(target, connections=connections, seconds=seconds, warm_up=warm_up, server=server)
    # Imported where it is wanted: grpc starts threads that the other rounds can do without.
    from benchmarks import grpc_load

    return await grpc_load.run(target, connections=connections, seconds=seconds, warm_up=warm_up, server=server)


async def one(target: Target) -> str | None:
    """As `load.one`."""
    if not target.call.grpc:
        return await load.one(target)
    from benchmarks import grpc_load

    return await grpc_load.one(target)
