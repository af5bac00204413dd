"""Asking a server, and whatever it asks back before it answers.

The four combinations of eras meet here. A server of 2026-07-28 answers `input_required`: a caller that comes back is
given that answer, one with a session is asked while its request is open. A session server asks while it works: a
caller with a session is asked just so, for one that comes back the work is parked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.core.connections import Connections, ConnectNeeded, takes_urls
from gateway.core.tools import questions, waiting
from gateway.core.tools.consents import Consents
from gateway.core.tools.found import Found
from gateway.core.tools.parking import Parked, Parking
from gateway.core.tools.reach import Reach
from gateway.core.tools.state import States, asked
from gateway.model.agent import MAX_ROUNDS
from gateway.model.asking import ASKED_WITH, ELICIT
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Caller, PeerError, Tree
from gateway.model.toolcall import UseServer

_URLS = "urls"  # the claim of a state that stands for nothing but such a visit

Work = Callable[[Caller], Awaitable[Tree]]


class Rounds:
    def __init__(
        self, reach: Reach, states: States, parking: Parking, connections: Connections, consents: Consents
    ) -> None:
        self._reached = reach
        self._states = states
        self._parking = parking
        self._connections = connections
        self._consents = consents

    async def aclose(self) -> None:
        await self._parking.aclose()

    def ask(self, call: UseServer, found: Found) -> Awaitable[Tree]:
        """The server's answer, or what it asks of a caller that comes back. Raises GatewayError; PeerError for what
        the server refused."""
        params = {**found.params}
        params.pop("requestState", None)
        if call.live:
            return self._live(call, found, params)
        if "requestState" in call.params:
            return self._again(call, found, params)
        return self._first(call, found, params)

    async def _reach(self, found: Found, method: str, params: Tree, caller: Caller, *, waits: bool = False) -> Tree:
        """`waits` is for callers that have no way to ask after a task: a server that has nothing else for them is asked
        in the gateway's name."""
        try:
            return await self._reached(found.served, found.key, found.who, method, params, caller)
        except PeerError as error:
            if not waits or not waiting.needs_tasks(error):
                raise
        taking = waiting.Declaring(caller)

        async def ask(method: str, params: Tree) -> Tree:
            return await self._reached(found.served, found.key, found.who, method, params, taking)

        result = await ask(method, params)
        return await waiting.end(result, caller, ask) if result.get("resultType") == "task" else result

    async def _live(self, call: UseServer, found: Found, params: Tree) -> Tree:
        """For a caller with a session: what the server needs is asked while the request is open."""
        send = params
        for _ in range(MAX_ROUNDS):
            try:
                result = await self._reach(found, call.method, send, call.caller, waits=True)
            except ConnectNeeded as needed:
                raise self._connections.refusal(needed, call.caller) from needed
            if result.get("resultType") != "input_required":
                return result
            wanted = questions.questions(result).items()
            answers = {key: await questions.answer(each, call.caller) for key, each in wanted}
            send = {**params, "inputResponses": answers}
            if "requestState" in result:
                send["requestState"] = result["requestState"]
        raise GatewayError(Reason.UPSTREAM_FAILED, f"{found.served.id} asked more than {MAX_ROUNDS} times")

    async def _first(self, call: UseServer, found: Found, params: Tree) -> Tree:
        work = self._work(found, call.method, params, waits=call.mount is None)
        if ASKED_WITH.values() & call.caller.capabilities.keys():
            return self._shown(call, await self._parking.begin(call.caller, work), found)
        return self._shown(call, await work(call.caller), found)

    async def _again(self, call: UseServer, found: Found, params: Tree) -> Tree:
        owner = call.caller.principal
        question = asked(call.mount, call.method, call.params)
        claims = self._states.take(call.params["requestState"], owner, question)
        answers = call.params.get("inputResponses")
        answers = answers if isinstance(answers, dict) else {}
        if "parked" in claims:
            return self._shown(call, await self._parking.go_on(claims["parked"], call.caller, answers), found)
        if _URLS in claims:
            params = {name: each for name, each in params.items() if name != "inputResponses"}
        elif "state" in claims:
            params = {**params, "requestState": claims["state"]}
        return await self._first(call, found, params)

    def _work(self, found: Found, method: str, params: Tree, *, waits: bool) -> Work:
        async def work(caller: Caller) -> Tree:
            try:
                return await self._reach(found, method, params, caller, waits=waits)
            except PeerError as error:
                urls = questions.visits(error, caller)
                if urls is None:
                    raise
                return {"resultType": "input_required", "inputRequests": urls, "requestState": None}
            except ConnectNeeded as needed:
                if waits or not takes_urls(caller):
                    raise  # whoever is inside does not answer for it: its own caller does (core/resting.py)
                asked = {"connect": {"method": ELICIT, "params": needed.visit}}
                return {"resultType": "input_required", "inputRequests": asked, "requestState": None}

        return work

    def _shown(self, call: UseServer, came: Tree | Parked, found: Found) -> Tree:
        """An answer for a caller that comes back: with a state of ours instead of the server's."""
        if isinstance(came, Parked):
            claims: Tree = {"parked": came.id}
            result: Tree = {"resultType": "input_required", "inputRequests": came.questions}
        elif came.get("resultType") == "input_required":
            questions.check_asked(came, call.caller)
            if "requestState" not in came and found.released is None:
                return came
            state = came.get("requestState")
            claims = {"state": state} if state is not None else {_URLS: True} if "requestState" in came else {}
            result = came
        else:
            return came
        if found.released is not None:
            claims |= self._consents.goes_on(found.released)
        question = asked(call.mount, call.method, call.params)
        return {**result, "requestState": self._states.give(claims, call.caller.principal, question)}
