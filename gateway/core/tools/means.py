"""What the use cases of tools work with: made once, where tools are assembled (tooling.py)."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.approvals.calls import AgentCalls
from gateway.core.audit import Recorder
from gateway.core.compliance.compliance import Compliance
from gateway.core.policy.admission import Admission
from gateway.core.tools.state import Sealer
from gateway.model.ports import Store
from gateway.model.value import value


@value
class Books:
    """With what a call is written down. `now` is in milliseconds since the epoch."""

    store: Store
    recorder: Recorder
    now: Callable[[], int]
    new_id: Callable[[], str]


@value
class Rules:
    """What a call has to pass: policy, labels and limits; the compliance profile; people."""

    admission: Admission
    compliance: Compliance
    calls: AgentCalls


@value
class Seals:
    """Around what a caller keeps for the gateway: the state of a request, and the id of a task."""

    states: Sealer
    tasks: Sealer
