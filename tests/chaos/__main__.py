"""`python -m tests.chaos [--short] [--only crash,drain] [--kills N] [--accepted N] [--seed N] [--keep DIR]`"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.chaos.crash import crash
from tests.chaos.drain import drain
from tests.chaos.instance import DidNotStart
from tests.chaos.push import push
from tests.chaos.resume import resume
from tests.chaos.streams import streams
from tests.chaos.tools import tools
from tests.chaos.town import Plan, Result

SCENARIOS: dict[str, Callable[[Plan], Awaitable[list[Result]]]] = {
    "resume": resume,
    "crash": crash,
    "drain": drain,
    "push": push,
    "streams": streams,
    "tools": tools,
}


def main() -> int:
    options = _options()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="gateway-chaos-"))
    kills = options.kills or (12 if options.short else 60)
    wanted = options.accepted or (300 if options.short else 3000)
    plan = Plan(folder.resolve(), options.seed, options.short, kills, wanted)
    print(f"seed {plan.seed}, folder {plan.folder}", flush=True)
    results = []
    for name in options.only:
        results += asyncio.run(_run(name, plan))
    failed = sum(not result.passed for result in results)
    if not failed and not options.keep:
        shutil.rmtree(folder)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


async def _run(name: str, plan: Plan) -> list[Result]:
    print(f"{name}:", flush=True)
    this = asyncio.current_task()
    assert this is not None
    # Whoever ends us must not leave gateways behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    began = time.monotonic()
    try:
        results = await SCENARIOS[name](plan)
    except DidNotStart as error:
        results = [Result(f"{name}: the gateway starts", False, str(error).splitlines())]
    for result in results:
        print(f"  {'ok  ' if result.passed else 'FAIL'} {result.sentence}")
        if not result.passed:
            print("\n".join(f"       {line}" for line in result.details if line))
    print(f"  {name} took {time.monotonic() - began:.0f} s", flush=True)
    return results


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.chaos", description="Break the gateway and look at what is left.")
    parser.add_argument("--short", action="store_true", help="12 kills and little of everything else")
    parser.add_argument("--only", type=_names, default=list(SCENARIOS), help=", ".join(SCENARIOS))
    parser.add_argument("--kills", type=int, help="how often the gateway is killed (60; 12 with --short)")
    parser.add_argument("--accepted", type=int, help="messages to be accepted (3000; 300 with --short)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="to repeat a run's choices")
    parser.add_argument("--keep", metavar="DIR", help="where data, logs and histories stay")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SCENARIOS):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
