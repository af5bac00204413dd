"""Limits: what is admitted when, for whom, and when trying again helps."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.core.policy import Target
from gateway.core.policy.limits import Charge, Limits
from gateway.core.tools.grants import Grants
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Kind, Principal
from gateway.model.trail import Asked, Trail
from gateway.policing import book
from gateway.stores.memory import MemoryStore

ANN = Principal(Kind.KEY, "ann")
BOB = Principal(Kind.KEY, "bob")
DOCS, WEB, ECHO = Target("docs/search"), Target("web/get"), Target("echo")
MINUTE, DAY = 60_000, 86_400_000


@dataclass
class Desk:
    """Limits of a file, with a clock that stands until it is told."""

    text: str
    store: MemoryStore = field(default_factory=MemoryStore)
    now: int = 1_000 * DAY
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        self.limits = Limits(self.store.governance, lambda: self.now)
        self.use(self.text)

    def use(self, text: str) -> None:
        made = book(Grants(()), text)
        self.limits.use(made.limits, made.costs)

    def call(
        self,
        who: Principal = ANN,
        target: Target = DOCS,
        verb: str = "tools/call",
        conversation: str = "c",
        trail: Trail | None = None,
    ) -> Charge | None:
        return self.limits.admit(who, verb, target, conversation, trail)

    def refused(self, **call: object) -> GatewayError:
        with pytest.raises(GatewayError) as refused:
            self.call(**call)  # type: ignore[arg-type]
        return refused.value

    def wait(self, **call: object) -> float | None:
        """How long the caller is told to wait, and that this is true."""
        error = self.refused(**call)
        assert error.reason is Reason.OVERLOADED
        assert error.retry_after is not None
        self.now += int(error.retry_after * 1000) - 1001
        if error.retry_after > 1:
            assert self.refused(**call).retry_after is not None
        self.now += 1001
        self.call(**call)  # type: ignore[arg-type]
        return error.retry_after


def test_a_rate_gives_its_burst_at_once_and_then_comes_back_evenly() -> None:
    desk = Desk("limits: [{limit: l, rate: 6/minute, burst: 3, per: principal}]")
    for _ in range(3):
        desk.call()
    assert desk.wait() == 10
    assert desk.wait() == 10
    desk.now += MINUTE * 10
    for _ in range(3):
        desk.call()
    desk.refused()


@pytest.mark.parametrize(
    ("per", "other", "shared"),
    [
        ("principal", {"who": BOB}, False),
        ("principal", {"target": WEB}, True),
        ("principal", {"who": ANN.delegate("helper")}, False),
        ("caller", {"who": ANN.delegate("helper")}, True),
        ("caller", {"who": BOB.delegate("helper")}, False),
        ("tool", {"target": WEB}, False),
        ("tool", {"who": BOB}, True),
        ("conversation", {"conversation": "d"}, False),
        ("conversation", {"who": BOB}, True),
    ],
)
def test_a_limit_is_counted_for_what_it_says(per: str, other: dict[str, object], shared: bool) -> None:
    desk = Desk(f"limits: [{{limit: l, calls: 1/day, per: {per}}}]")
    desk.call()
    if shared:
        desk.refused(**other)
    else:
        desk.call(**other)  # type: ignore[arg-type]
    desk.refused()


def test_a_limit_per_agent_is_not_about_tools() -> None:
    desk = Desk("limits: [{limit: l, calls: 1/day, per: agent}]")
    for _ in range(3):
        desk.call()
    desk.call(target=ECHO, verb="SendMessage")
    desk.call(target=Target("other"), verb="SendMessage")
    desk.refused(target=ECHO, verb="SendMessage")


def test_a_limit_is_about_whom_and_what_it_names() -> None:
    desk = Desk("limits: [{limit: l, who: ann, on: docs, calls: 1/day}]")
    desk.call()
    for other in ({"who": BOB}, {"target": WEB}, {"verb": "prompts/get"}):
        assert desk.call(**other) is None
    desk.refused()


def test_so_many_at_a_time_and_a_place_comes_back_once() -> None:
    desk = Desk("limits: [{limit: l, concurrency: 2, per: principal}]")
    first, second = desk.call(), desk.call()
    assert desk.refused().retry_after == 1
    assert first is not None
    first.close()
    first.close()
    third = desk.call()
    desk.refused()
    for charge in (second, third):
        assert charge is not None
        charge.close()


def test_a_window_ends_with_the_day() -> None:
    desk = Desk("limits: [{limit: l, calls: 2/day}]")
    desk.now += DAY - 5_000
    desk.call()
    desk.call()
    assert desk.wait() == 5


def test_seconds_are_counted_when_a_call_is_over() -> None:
    desk = Desk("limits: [{limit: l, seconds: 10/hour}]")
    long = desk.call()
    desk.now += 11_000
    desk.call()
    assert long is not None
    long.close()
    assert desk.refused().retry_after == 3600 - 11


def test_cost_is_what_a_call_costs() -> None:
    desk = Desk("{limits: [{limit: l, cost: 10/day}], costs: [{on: docs, cost: 4}, {on: web, cost: 0.5}]}")
    desk.call()
    desk.call()
    desk.refused()
    for _ in range(4):
        desk.call(target=WEB)
    desk.refused(target=WEB)


def test_a_cost_that_no_double_has_exactly_adds_up_all_the_same() -> None:
    desk = Desk("{limits: [{limit: l, cost: 0.3/day}], costs: [{on: docs, cost: 0.1}]}")
    for _ in range(3):
        desk.call()
    desk.refused()


def test_depth_and_fan_out_are_refused_for_good() -> None:
    desk = Desk("limits: [{limit: deep, depth: 1}, {limit: wide, fan_out: 2}]")
    one, two = ANN.delegate("a"), ANN.delegate("a").delegate("b")
    desk.call(who=one)
    assert desk.refused(who=two).reason is Reason.PERMISSION_DENIED
    trail = Trail("root", "c", "task", (Asked("a", b""),))
    desk.call(who=one, trail=trail)
    desk.call(who=one, trail=trail)
    error = desk.refused(who=one, trail=trail)
    assert (error.reason, error.retry_after, error.metadata) == (Reason.PERMISSION_DENIED, None, {"limit": "wide"})
    desk.call(who=one, trail=Trail("root", "c", "another", (Asked("a", b""),)))


def test_of_several_limits_the_one_that_holds_longest_is_named() -> None:
    desk = Desk("limits: [{limit: l, rate: 1/minute, calls: 1/day}, {limit: m, rate: 1/hour}]")
    desk.call()
    assert desk.refused().metadata == {"limit": "l"}
    assert desk.wait() == 86_400
    shallow = Desk("limits: [{limit: l, rate: 1/minute}, {limit: m, depth: 0}]")
    shallow.call()
    assert shallow.refused(who=ANN.delegate("echo")).reason is Reason.PERMISSION_DENIED


def test_a_call_that_costs_more_than_there_ever_is_is_refused_for_good() -> None:
    desk = Desk("limits: [{limit: l, cost: 3/day}]\ncosts: [{on: docs/search, cost: 4}]")
    error = desk.refused()
    assert (error.reason, error.retry_after) == (Reason.PERMISSION_DENIED, None)
    assert "one call costs 4" in error.message
    desk.call(target=WEB)


def test_what_one_limit_refuses_is_taken_of_none() -> None:
    desk = Desk("limits: [{limit: all, calls: 3/day}, {limit: few, who: ann, calls: 1/day}]")
    desk.call()
    for _ in range(5):
        desk.refused()
    desk.call(who=BOB)
    desk.call(who=BOB)
    desk.refused(who=BOB)


async def test_a_restart_forgets_nothing_of_a_window() -> None:
    text = "limits: [{limit: l, calls: 2/day}]"
    desk = Desk(text)
    await desk.limits.start()
    desk.call()
    desk.call()
    await desk.limits.aclose()
    later = Desk(text, store=desk.store)
    await later.limits.start()
    later.refused()
    later.now += DAY
    later.call()
    await later.limits.aclose()


def test_a_limit_that_changes_keeps_its_count() -> None:
    desk = Desk("limits: [{limit: l, calls: 2/day}]")
    desk.call()
    desk.use("limits: [{limit: l, calls: 3/day}]")
    desk.call()
    desk.call()
    desk.refused()


def test_a_rate_that_is_raised_holds_at_once() -> None:
    desk = Desk("limits: [{limit: l, rate: 1/day}]")
    desk.call()
    assert desk.refused().retry_after == 86_400
    desk.use("limits: [{limit: l, rate: 60/minute, burst: 1}]")
    assert desk.wait() == 1


def test_a_clock_that_is_set_back_keeps_nobody_out_for_so_long() -> None:
    desk = Desk("limits: [{limit: l, rate: 60/minute, burst: 2}]")
    desk.call()
    desk.now -= DAY
    assert desk.wait() == 1


OF_ALL = "{limit: all, do: use, per: principal, calls: 2/day}"
OF_EACH = "{limit: each, do: use, on: agents/echo, per: agent, calls: 2/day}"
OF_COST = "{limit: dear, do: use, cost: 6/day}"
COSTS = "costs: [{on: agents/echo, cost: 3}]"


def test_a_call_that_names_no_agent_takes_of_each_limit_once() -> None:
    desk = Desk(f"limits: [{OF_ALL}, {OF_EACH}, {OF_COST}]\n{COSTS}")
    for _ in range(2):
        desk.limits.begin(ANN, "GetTask").admit(ANN, "GetTask", ECHO)
    with pytest.raises(GatewayError, match="The limit all is used up"):
        desk.limits.begin(ANN, "GetTask")
    for limit in (OF_EACH, OF_COST):
        desk.use(f"limits: [{limit}]\n{COSTS}")
        charge = desk.limits.begin(ANN, "GetTask")
        with pytest.raises(GatewayError, match="is used up"):
            charge.admit(ANN, "GetTask", ECHO)


def test_a_call_that_names_no_agent_gives_back_the_places_of_all_that_it_was_about() -> None:
    desk = Desk("limits: [{limit: one, do: use, on: agents/*, per: agent, concurrency: 1}]")
    charge = desk.limits.begin(ANN, "ListTasks")
    for agent in (ECHO, Target("other"), ECHO):
        charge.admit(ANN, "ListTasks", agent)
    desk.refused(target=ECHO, verb="GetTask")
    charge.close()
    desk.call(target=ECHO, verb="GetTask")
