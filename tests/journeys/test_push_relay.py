"""What a receiver can rely on: signatures that others' code checks, order, another try, a dead letter, a replay."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import runpy
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.core.push import hosts, worker
from gateway.core.push.worker import pause_ms
from gateway.stores.memory import MemoryStore
from gateway.upstream import webhook
from tests.bindings import BINDINGS, Caller, state
from tests.journeys.conftest import TOWN
from tests.journeys.test_push import CREATE, LIST, hooked
from tests.receiver import Fault, Receiver, Told, receiving
from tests.remote import command, until
from tests.serving import ROOT, Gateway, running
from tests.upstream.tls import contexts

pytestmark = pytest.mark.asyncio(loop_scope="module")

RAW = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(RAW).decode()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a patient worker would be a test's whole life."""
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 5)
    monkeypatch.setattr(worker, "LAST_RETRY_MS", 50)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(hosts, "PAUSES", (0.05,))


@pytest_asyncio.fixture(loop_scope="module")
async def caller(gateway: Gateway) -> Caller:
    return Caller(gateway, "http")


@pytest_asyncio.fixture(loop_scope="module")
async def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Caller]:
    """A gateway that gives up after the first failure: the next try would come too late."""
    async with running(tmp_path, TOWN + "push: {give_up_seconds: 1}\n") as gateway:
        monkeypatch.setattr(worker, "FIRST_RETRY_MS", 10_000)
        monkeypatch.setattr(worker, "LAST_RETRY_MS", 10_000)
        yield Caller(gateway, "http")


async def admin(caller: Caller, verb: str, path: str, *, who: str | None = None) -> Any:
    answer = await caller.gateway.client.request(verb, f"/admin/push{path}", headers=caller.gateway.bearer(who))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def dead(caller: Caller, count: int = 1) -> Any:
    async def look() -> Any:
        letters = (await admin(caller, "GET", "/dead"))["dead"]
        return letters if len(letters) >= count else None

    return await until(look)


# The kill switch.


async def test_webhooks_of_a_frozen_principal_are_told_nothing_until_it_is_thawed(caller: Caller) -> None:
    mallory = await caller.other("mallory")
    async with receiving() as slow, receiving() as failing, receiving() as others:
        slow.hold, failing.chance = asyncio.Event(), lambda: 500
        await mallory.task("hi", configuration=hooked({"url": slow.url}))
        task = await mallory.task("hi", configuration=hooked({"url": failing.url}))
        await asyncio.gather(slow.until(1), failing.until(2))
        await switch(caller, "/admin/frozen")
        try:
            hands = {each["host"]: each["inHand"] for each in (await admin(caller, "GET", ""))["hosts"]}
            assert hands.get(slow.host, 0) == hands.get(failing.host, 0) == 0, "what was in hand is cut short"
            tried = len(failing.told)
            fine = await caller.task("hi", configuration=hooked({"url": others.url}))
            await others.ended(fine["id"])
            waiting = {each["taskId"] for each in (await admin(caller, "GET", ""))["queues"]}
            assert task["id"] in waiting, "what came due before that was passed over, and is not lost"
            assert len(failing.told) == tried
        finally:
            await switch(caller, "/admin/frozen:thaw")
        failing.chance = lambda: 200
        assert await failing.ended(task["id"])


async def switch(caller: Caller, path: str) -> None:
    cold = {"kind": "principal", "name": "mallory"}
    answer = await caller.gateway.client.post(path, json=cold, headers=caller.gateway.bearer(None))
    assert answer.status_code < 300, answer.text


# Signatures.


@pytest.mark.requirement("webhooks.hmac", "webhooks.id")
@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_receiver_with_a_secret_checks_every_delivery_with_a_library(gateway: Gateway, binding: str) -> None:
    caller = Caller(gateway, binding)
    async with receiving(500) as receiver:
        config = {"url": receiver.url, "token": SECRET}
        task = await caller.task("count 2", configuration=hooked(config))
        told = await receiver.ended(task["id"])
        shown = (await caller.call(LIST, taskId=task["id"]))["configs"]
    assert [one["token"] for one in shown] == [SECRET]
    assert len({one.headers["webhook-id"] for one in told}) == len(told) - 1  # the repeat has the id of the first try
    for one in told:
        assert Webhook(SECRET).verify(one.body, one.headers) == one.tree
        assert "x-a2a-notification-token" not in one.headers  # what signs is never sent
        with pytest.raises(WebhookVerificationError):
            Webhook("whsec_" + base64.b64encode(RAW[::-1]).decode()).verify(one.body, one.headers)


@pytest.mark.requirement("webhooks.id")
async def test_two_configurations_at_one_address_get_messages_of_their_own(caller: Caller) -> None:
    async with receiving() as receiver:
        task = await caller.task("ask", configuration=hooked({"url": receiver.url, "id": "one"}))
        await caller.call(CREATE, taskId=task["id"], url=receiver.url, id="two")
        await caller.task("the answer", taskId=task["id"])
        told = await receiver.taken(task["id"], 4)

        async def all_told() -> bool:
            return len(receiver.about(task["id"])) == 6

        await until(all_told)
    ids = [one.headers["webhook-id"] for one in receiver.about(task["id"])]
    assert len(set(ids)) == len(ids) > len({one.seq for one in told})


@pytest.mark.requirement("webhooks.hmac")
async def test_not_a_byte_of_a_delivery_can_be_changed(caller: Caller) -> None:
    async with receiving() as receiver:
        task = await caller.task("hi", configuration=hooked({"url": receiver.url, "token": SECRET}))
        one = (await receiver.ended(task["id"]))[0]
    keys = await key_set(caller)
    for number in range(len(one.body)):
        body = bytearray(one.body)
        body[number] ^= 1
        changed = bytes(body).decode("latin-1").encode()  # the library wants UTF-8
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(changed, one.headers)
        assert not signed(keys, one.headers, bytes(body))
    for name, value in (("webhook-id", one.headers["webhook-id"] + "x"), ("webhook-timestamp", "1700000000")):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(one.body, {**one.headers, name: value})
        assert not signed(keys, {**one.headers, name: value}, one.body)


@pytest.mark.requirement("webhooks.ed25519")
async def test_a_receiver_without_a_secret_checks_with_the_published_key(caller: Caller) -> None:
    async with receiving() as receiver:
        plain = await caller.task("hi", configuration=hooked({"url": receiver.url}))
        told = await receiver.ended(plain["id"])
    keys = await key_set(caller)
    for one in told:
        assert one.headers["webhook-signature"].startswith("v1a,")
        assert signed(keys, one.headers, one.body)


async def test_the_example_knows_the_gateway_by_its_key_and_by_a_secret(caller: Caller) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "signatures.py"))
    async with receiving() as receiver:
        task = await caller.task("hi", configuration=hooked({"url": receiver.url, "token": SECRET}))
        one = (await receiver.ended(task["id"]))[0]
    keys = await key_set(caller)
    old = {**one.headers, "webhook-timestamp": str(int(one.headers["webhook-timestamp"]) - 301)}
    for check, right, wrong in (("by_secret", SECRET, "whsec_AAAA"), ("by_key", keys, [{**keys[0], "x": "A" * 43}])):
        by = example[check]
        assert by(one.headers, one.body, right)
        assert not by(one.headers, one.body, wrong)
        assert not by(one.headers, one.body + b" ", right)
        assert not by(old, one.body, right)


@pytest.mark.requirement("webhooks.ed25519")
async def test_the_key_is_the_same_after_a_restart_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        async with running(tmp_path, TOWN) as gateway:
            found.append(await key_set(Caller(gateway, "http")))
    assert found[0] == found[1] != []
    folder = tmp_path / "webhook-keys"
    assert [path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())] == [0, 0]


async def key_set(caller: Caller) -> list[dict[str, str]]:
    """As anybody gets it, without a credential."""
    answer = await caller.gateway.client.get("/.well-known/webhook-jwks.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jwk-set+json"
    keys: list[dict[str, str]] = answer.json()["keys"]
    assert all("d" not in key and (key["kty"], key["crv"]) == ("OKP", "Ed25519") for key in keys)
    return keys


def signed(keys: list[dict[str, str]], headers: dict[str, str], body: bytes) -> bool:
    """Written from the specification of Standard Webhooks, not with the gateway's own code."""
    content = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    found = [each.split(",")[1] for each in headers["webhook-signature"].split() if each.startswith("v1a,")]
    for key in keys:
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
        for signature in found:
            try:
                public.verify(base64.b64decode(signature), content)
                return True
            except InvalidSignature:
                continue
    return False


@pytest.mark.parametrize(
    "token", ["whsec_", "whsec_c2hvcnQ=", "whsec_!!!!", "whsec_" + base64.b64encode(b"x" * 65).decode()]
)
async def test_a_secret_that_is_none_is_refused_when_it_is_given(caller: Caller, token: str) -> None:
    task = await caller.task()
    error = await caller.refused("INVALID_PARAMS", CREATE, taskId=task["id"], url="https://example.com/x", token=token)
    assert error.fields.keys() == {"token"}
    assert token not in error.message or token == "whsec_"


async def test_a_webhook_of_a_client_of_0_3_is_signed_over_the_task_that_it_gets(gateway: Gateway) -> None:
    config = {"id": "c", "url": "", "token": SECRET}
    async with receiving() as receiver:
        params = {
            "message": {
                "kind": "message",
                "messageId": "older",
                "role": "user",
                "parts": [{"kind": "text", "text": "hi"}],
            },
            "configuration": {"pushNotificationConfig": {**config, "url": receiver.url}},
        }
        answer = await gateway.post(
            {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params}, **{"A2A-Version": "0.3"}
        )
        told = await receiver.ended(answer.json()["result"]["id"])
    for one in told:
        assert one.tree["kind"] == "task"
        assert Webhook(SECRET).verify(one.body, one.headers) == one.tree


# Trying again, in order.


@pytest.mark.requirement("webhooks.order", "webhooks.at-least-once")
async def test_receivers_with_every_fault_hear_everything_in_order(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.2)
    chance = random.Random(7)
    faults: list[int | Fault] = [500, 502, 503, 429, 302, 400, Fault.RESET, Fault.HANG, Fault.SLOW]

    def answer() -> int | Fault:
        return chance.choice(faults) if chance.random() < 0.4 else 200

    async with receiving() as one, receiving() as other, receiving() as third:
        for receiver in (one, other, third):
            receiver.chance = answer
        wanted = [receiver for receiver in (one, other, third) for _ in range(6)]
        tasks = await asyncio.gather(
            *(caller.task("count 5", configuration=hooked({"url": receiver.url})) for receiver in wanted)
        )
        for task, receiver in zip(tasks, wanted, strict=True):
            check_order(await receiver.taken(task["id"], 8))


def check_order(told: list[Told]) -> None:
    """Of one task: nothing is missing, and nothing comes again once a later event has come."""
    numbers = [one.seq for one in told]
    assert numbers == sorted(numbers)
    assert {one.seq for one in told if one.taken} == set(range(1, 9))
    assert "task" in told[0].tree


@pytest.mark.requirement("a2a.webhook.retry")
async def test_pauses_double_up_to_an_hour_and_chance_takes_at_most_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    whole = [pause_ms(attempts, 0.0) for attempts in range(1, 40)]
    assert whole[:4] == [1000, 2000, 4000, 8000]
    assert all(after == min(2 * before, 3_600_000) for before, after in pairwise(whole))
    assert [pause_ms(n, 1.0) for n in (1, 3, 39)] == [500, 2000, 1_800_000]


async def test_a_webhook_is_left_alone_as_long_as_it_asks(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LAST_RETRY_MS", 1000)
    async with receiving(503) as receiver:
        receiver.headers = "retry-after: 1\r\n"
        await caller.task("ask", configuration=hooked({"url": receiver.url}))
        first, second = (await receiver.until(2))[:2]
    assert second.at - first.at > 0.9


@pytest.mark.requirement("webhooks.no-redirects")
async def test_a_redirect_is_a_failure_and_nobody_follows_it(caller: Caller) -> None:
    async with receiving() as elsewhere, receiving(307) as receiver:
        receiver.headers = f"location: {elsewhere.url}\r\n"
        task = await caller.task("hi", configuration=hooked({"url": receiver.url}))
        told = await receiver.ended(task["id"])
    assert told[0].body == told[1].body
    assert elsewhere.told == []


async def test_a_webhook_whose_certificate_nobody_vouches_for_is_told_nothing(hasty: Caller, tmp_path: Path) -> None:
    server, _ = contexts(tmp_path, "127.0.0.1")
    async with receiving(tls=server) as receiver:
        await hasty.task("ask", configuration=hooked({"url": receiver.url}))
        letter, *_ = await dead(hasty)
    assert "certificate" in letter["problem"].lower()
    assert receiver.told == []


@pytest.mark.requirement("a2a.webhook.private-addresses-refused")
async def test_a_name_that_leads_into_the_machine_by_then_is_refused_when_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def rebound(host: Any, port: Any, **how: Any) -> Any:
        return await real("127.0.0.1" if host == "hooks.test" else host, port, **how)

    monkeypatch.setattr(loop, "getaddrinfo", rebound)
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 10_000)
    monkeypatch.setattr(worker, "LAST_RETRY_MS", 10_000)
    config = TOWN.replace("allow_loopback: true", "allow_loopback: false") + "push: {give_up_seconds: 1}\n"
    async with receiving() as receiver, running(tmp_path, config) as gateway:
        caller = Caller(gateway, "http")
        await caller.task("ask", configuration=hooked({"url": f"http://hooks.test:{receiver.port}/"}))
        letter, *_ = await dead(caller)
    assert "egress.allow" in letter["problem"]
    assert receiver.told == []


@pytest.mark.requirement("webhooks.order")
async def test_what_is_in_hand_does_not_go_out_twice_however_long_it_takes(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LEASE_MS", 20)  # as after a sleep of the whole machine
    async with receiving() as slow, receiving() as witness:
        slow.hold = asyncio.Event()
        stuck = await caller.task("count 1", configuration=hooked({"url": slow.url}))
        for _ in range(5):  # each of these takes several looks at the outbox
            task = await caller.task("count 3", configuration=hooked({"url": witness.url}))
            await witness.ended(task["id"])
        assert len(slow.told) == 1
        slow.hold.set()
        # (A lease as short as this one may also end between an answer and its record; then it is told again, in order.)
        assert list(dict.fromkeys(one.seq for one in await slow.ended(stuck["id"]))) == [1, 2, 3, 4]


@pytest.mark.requirement("webhooks.breaker")
async def test_a_host_that_keeps_failing_rests_and_holds_up_no_other(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "PAUSES", (3600,))
    async with receiving() as broken, receiving() as fine:
        broken.chance = lambda: 500
        await asyncio.gather(*(caller.task("ask", configuration=hooked({"url": broken.url})) for _ in range(10)))

        async def rests() -> Any:
            found = (await admin(caller, "GET", ""))["hosts"]
            found = [host for host in found if host["host"] == broken.host and host["restsUntil"]]
            return [host for host in found if not host["inHand"]]

        (host,) = await until(rests)
        assert host["failures"] >= hosts.MAX_FAILURES
        tried = len(broken.told)
        task = await caller.task("hi", configuration=hooked({"url": fine.url}))
        await fine.ended(task["id"])
        assert len(broken.told) == tried <= hosts.MAX_FAILURES + hosts.PER_HOST
        waiting = (await admin(caller, "GET", "?limit=1000"))["queues"]
        assert sum(queue["waiting"] for queue in waiting if queue["host"] == broken.host) >= 10


@pytest.mark.requirement("webhooks.breaker")
async def test_a_host_that_is_back_is_noticed_by_one_try_and_told_everything(caller: Caller) -> None:
    async with receiving(*[503] * (hosts.MAX_FAILURES + hosts.PER_HOST)) as receiver:
        wanted = {"configuration": hooked({"url": receiver.url})}
        tasks = await asyncio.gather(*(caller.task("hi", **wanted) for _ in range(10)))
        for task in tasks:
            await receiver.ended(task["id"])


@pytest.mark.requirement("webhooks.breaker")
async def test_a_slow_host_gets_so_many_at_a_time_and_no_more(caller: Caller) -> None:
    async with receiving() as slow, receiving() as fine:
        slow.hold = asyncio.Event()
        await asyncio.gather(
            *(caller.task("ask", configuration=hooked({"url": slow.url})) for _ in range(hosts.PER_HOST + 4))
        )
        await slow.until(hosts.PER_HOST)
        task = await caller.task("hi", configuration=hooked({"url": fine.url}))
        await fine.ended(task["id"])
        assert len(slow.told) == hosts.PER_HOST
        slow.hold.set()
        await slow.until(hosts.PER_HOST + 4)


# 410, dead letters, replay.


@pytest.mark.requirement("webhooks.gone")
async def test_410_removes_the_configuration_and_the_record_says_so(caller: Caller) -> None:
    async with receiving(410) as gone, receiving() as witness:
        config = hooked({"url": gone.url, "id": "gone"})
        task = await caller.task("ask", configuration=config)
        await gone.until(1)

        async def removed() -> bool:
            return not (await caller.call(LIST, taskId=task["id"]))["configs"]

        await until(removed)
        await caller.call(CREATE, taskId=task["id"], url=witness.url)
        await caller.task("the answer", taskId=task["id"])
        await witness.ended(task["id"])
        assert len(gone.told) == 1
    entries = await caller.gateway.record()
    (entry,) = [entry for entry in entries if entry.rule == "webhook-gone" and entry.task_id == task["id"]]
    assert (entry.verb, entry.outcome, entry.target) == ("DeleteTaskPushNotificationConfig", "gone", "echo")
    assert entry.principal == "local:local"


@pytest.mark.requirement("webhooks.dead-letters")
async def test_what_is_given_up_is_a_dead_letter_and_the_next_event_has_its_turn(hasty: Caller) -> None:
    async with receiving(500) as receiver:
        wanted = {"url": receiver.url + "?key=k3y", "token": SECRET}
        task = await hasty.task("count 2", configuration=hooked(wanted))
        told = await receiver.ended(task["id"])
        (letter,) = await dead(hasty)
        assert (letter["taskId"], letter["event"], letter["attempts"]) == (task["id"], 1, 1)
        assert letter["problem"] == "the webhook answered with status 500"
        assert letter["host"] == receiver.host
        assert "k3y" not in json.dumps(letter)
        assert [one.seq for one in told] == [1, 2, 3, 4, 5]
        replayed = await admin(hasty, "POST", f"/dead/{letter['id']}:replay")
        assert replayed == {"replayed": 1}
        again = (await receiver.until(6))[-1]
        assert (again.body, again.headers["webhook-id"]) == (told[0].body, told[0].headers["webhook-id"])
        assert (await admin(hasty, "GET", "/dead"))["dead"] == []
        answer = await hasty.gateway.client.post(
            f"/admin/push/dead/{letter['id']}:replay", headers=hasty.gateway.bearer(None)
        )
        assert answer.status_code == 404
        assert "gateway push dead" in answer.json()["error"]["message"]


@pytest.mark.requirement("a2a.webhook.retry", "webhooks.dead-letters")
async def test_what_fails_is_tried_until_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 100)
    monkeypatch.setattr(worker, "LAST_RETRY_MS", 10_000)
    clock, config = [1_000_000_000_000], TOWN + "push: {give_up_seconds: 1}\n"
    store = MemoryStore(node="one", now=lambda: clock[0])
    async with receiving() as receiver, running(tmp_path, config, store=store, now=lambda: clock[0]) as gateway:
        monkeypatch.setattr(gateway.app.push, "_chance", lambda: 0.0)
        receiver.chance = lambda: 400
        caller = Caller(gateway, "http")
        task = await caller.task("ask", configuration=hooked({"url": receiver.url}))
        for number, pause in enumerate((100, 200, 400), 1):  # and the next would be 800, which is too late

            async def failed(attempt: str = f", attempt {number}: ") -> bool:
                return any(task["id"] in line and attempt in line for line in caplog.messages)

            await until(failed)
            clock[0] += pause
        letter, *_ = await dead(caller)
        assert letter["attempts"] == 4
        assert [one.seq for one in receiver.told][:4] == [letter["event"]] * 4


@pytest.mark.requirement("webhooks.dead-letters")
async def test_dead_letters_survive_a_restart_and_are_replayed_in_the_order_of_their_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TOWN + "push: {give_up_seconds: 1}\n"
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 10_000)
    monkeypatch.setattr(worker, "LAST_RETRY_MS", 10_000)
    async with receiving() as receiver:
        receiver.chance = lambda: 400  # the host works, so it need not rest
        async with running(tmp_path, config) as gateway:
            caller = Caller(gateway, "http")
            task = await caller.task("count 3", configuration=hooked({"url": receiver.url}))
            await dead(caller, 6)
        receiver.chance = lambda: 200
        receiver.told.clear()
        async with running(tmp_path, config) as gateway:
            caller = Caller(gateway, "http")
            assert await admin(caller, "POST", "/dead:replay") == {"replayed": 6}
            told = await receiver.ended(task["id"])
    assert [one.seq for one in told] == [1, 2, 3, 4, 5, 6]


@pytest.mark.requirement("webhooks.dead-letters")
async def test_only_the_operator_sees_the_pushes_of_others(hasty: Caller) -> None:
    key = await hasty.gateway.key("stranger")
    for verb, path in (("GET", ""), ("GET", "/dead"), ("POST", "/dead:replay"), ("POST", "/dead/1:replay")):
        for who, status in ((key, 403), ("wrong", 401)):
            headers = hasty.gateway.bearer(who)
            answer = await hasty.gateway.client.request(verb, f"/admin/push{path}", headers=headers)
            assert answer.status_code == status, (path, answer.text)


async def test_the_command_line_shows_and_replays_what_was_given_up(hasty: Caller) -> None:
    gateway = hasty.gateway

    async def run(*words: str) -> Any:
        return await asyncio.to_thread(command, gateway.app.settings.data, "push", *words, url=gateway.url)

    assert "No push was given up." in (await run("dead")).stderr
    assert "Nothing waits" in (await run("show")).stderr
    async with receiving(500, 200, 500) as receiver:
        task = await hasty.task("count 1", configuration=hooked({"url": receiver.url}))
        await dead(hasty, 2)
        shown = await run("dead")
        assert task["id"] in shown.stdout
        assert "the webhook answered with status 500" in shown.stdout
        letters = json.loads((await run("dead", "--json")).stdout)["dead"]
        assert [letter["event"] for letter in letters] == [1, 3]
        assert (await run("replay")).returncode == 2
        assert (await run("replay", str(letters[1]["id"]))).returncode == 0
        assert json.loads((await run("replay", "--all", "--json")).stdout) == {"replayed": 1}
        refused = await run("replay", "999")
        assert refused.returncode == 1
        assert "There is no dead push 999" in refused.stderr


async def test_the_command_line_shows_what_waits_and_why(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = caller.gateway
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 60_000)
    monkeypatch.setattr(worker, "LAST_RETRY_MS", 60_000)
    async with receiving(404) as receiver:
        task = await caller.task("hi", configuration=hooked({"url": receiver.url, "id": "mine"}))

        async def failed() -> Any:
            queues = (await admin(caller, "GET", "?limit=1000"))["queues"]
            return [queue for queue in queues if queue["taskId"] == task["id"] and queue["attempts"]]

        (queue,) = await until(failed)
        assert (queue["configId"], queue["host"], queue["waiting"]) == ("mine", receiver.host, 2)
        words = ("push", "show", "--limit", "1000")
        shown = await asyncio.to_thread(command, gateway.app.settings.data, *words, url=gateway.url)
        (line,) = [line for line in shown.stdout.splitlines() if task["id"] in line]
        assert line.endswith("the webhook answered with status 404")


# Whose webhook is it?


@pytest_asyncio.fixture(loop_scope="module")
async def careful(tmp_path: Path) -> AsyncIterator[Caller]:
    async with running(tmp_path, TOWN + "push: {challenge: true}\n") as gateway:
        yield Caller(gateway, "http")


@pytest.mark.requirement("webhooks.challenge")
async def test_a_webhook_that_gives_the_token_back_is_told_and_not_asked_again(careful: Caller) -> None:
    async with receiving(Fault.ECHO) as receiver:
        url = receiver.url + "?mine=1"
        task = await careful.task("ask", configuration=hooked({"url": url}))
        await careful.call(CREATE, taskId=task["id"], url=url, id="second")
        asked, *told = await receiver.until(2)
    assert asked.line.startswith("GET /hook?mine=1&validationToken=")
    assert all(one.line.startswith("POST /hook?mine=1 ") for one in told)


@pytest.mark.requirement("webhooks.challenge")
@pytest.mark.parametrize("answer", [200, 404, 302, Fault.RESET])
async def test_a_webhook_that_does_not_agree_gets_the_challenge_and_nothing_else(
    careful: Caller, answer: int | Fault
) -> None:
    task = await careful.task("ask")
    async with receiving() as receiver:
        receiver.chance = lambda: answer
        refused: list[Receiver] = []
        for method, params in (
            (CREATE, {"taskId": task["id"], "url": receiver.url}),
            ("SendMessage", {"message": {"messageId": f"m-{answer}", "role": "ROLE_USER", "parts": [{"text": "hi"}]},
                             "configuration": hooked({"url": receiver.url})}),
        ):  # fmt: skip
            error = await careful.refused("INVALID_PARAMS", method, **params)
            assert error.fields.keys() == {"url"}
            refused.append(receiver)
        assert {one.line.split()[0] for one in receiver.told} == {"GET"}
    assert (await careful.call(LIST, taskId=task["id"]))["configs"] == []


async def test_without_the_setting_nobody_is_challenged(caller: Caller) -> None:
    async with receiving() as receiver:
        task = await caller.task("hi", configuration=hooked({"url": receiver.url}))
        told = await receiver.ended(task["id"])
    assert all(one.line.startswith("POST ") for one in told)
    assert state(task) == "COMPLETED"
