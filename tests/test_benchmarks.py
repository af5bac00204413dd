"""The benchmarks measure what they say: arithmetic, targets, and no wrong answer is ever counted as a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import orjson
import pytest
from a2a.types.a2a_pb2 import Role, SendMessageRequest

from benchmarks import calls, generators, load, report, targets
from benchmarks.answers import Answer, events, fault
from benchmarks.bench import comparison
from benchmarks.calls import Target
from benchmarks.figures import Spread, percentile, ratios
from benchmarks.load import Round
from benchmarks.scenarios import PAIRS, SCENARIOS

SENT = calls.send("hello back %(n)d")
STREAMED = calls.stream("TASK_STATE_COMPLETED", 3)


def answer(body: bytes, *, status: int = 200, streamed: bool = False) -> Answer:
    return Answer(status, streamed, body)


def event(number: int, text: str = "working") -> bytes:
    return b'data: {"jsonrpc":"2.0","id":%d,"result":{"text":"%s"}}\n\n' % (number, text.encode())


DONE = event(7, "TASK_STATE_COMPLETED")


def test_a_right_answer_has_no_fault() -> None:
    assert fault(answer(b'{"jsonrpc":"2.0","id":7,"result":{"text":"hello back 7"}}'), SENT, 7) is None
    assert fault(answer(event(7) + event(7) + DONE, streamed=True), STREAMED, 7) is None


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (answer(b'{"jsonrpc":"2.0","id":7,"result":{}}', status=503), "status 503"),
        (answer(b'{"jsonrpc":"2.0","id":8,"result":{"text":"hello back 7"}}'), "wrong id"),
        (answer(b'{"jsonrpc":"2.0","id":"7","result":{"text":"hello back 7"}}'), "wrong id"),
        (answer(b'{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"hello back 7"}}'), "no result"),
        (answer(b'["hello back 7"]'), "no result"),
        (answer(b'{"jsonrpc":"2.0","id":7,"result":{"text":"hello back 6"}}'), "expected text missing"),
        (answer(b"hello back 7"), "not JSON"),
        (answer(DONE, streamed=True), "a stream"),
    ],
)
def test_a_wrong_answer_is_found(wrong: Answer, found: str) -> None:
    assert fault(wrong, SENT, 7) == found


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (answer(event(7) + DONE, streamed=True), "2 events"),
        (answer(event(7) * 3 + DONE, streamed=True), "4 events"),
        (answer(b"", streamed=True), "0 events"),
        (answer(event(7) + event(6) + DONE, streamed=True), "wrong id"),
        (answer(event(7) + DONE + event(7), streamed=True), "expected text missing"),
        (answer(event(7) + b'data: {"id":7,"error":{}}\n\n' + DONE, streamed=True), "no result"),
        (answer(b'{"jsonrpc":"2.0","id":7,"result":{"text":"TASK_STATE_COMPLETED"}}'), "not a stream"),
    ],
)
def test_a_wrong_stream_is_found(wrong: Answer, found: str) -> None:
    assert fault(wrong, STREAMED, 7) == found


def test_comments_and_event_names_are_no_events() -> None:
    assert events(b': keep-alive\n\nevent: x\r\nid: 1\r\ndata: {"a":1}\r\n\r\n') == [b' {"a":1}\r']


def test_no_two_requests_share_an_id_or_a_message_id() -> None:
    one, other = (Target(1, "/", calls.send("", prefix="tck-")) for _ in range(2))
    sent = [target.request() for target in (one, other, one)]
    bodies = [orjson.loads(request.partition(b"\r\n\r\n")[2]) for _, request in sent]
    message_ids = [body["params"]["message"]["messageId"] for body in bodies]
    assert len(set(message_ids)) == 3
    assert all(id.startswith("tck-") for id in message_ids)
    assert [body["id"] for body in bodies] == [number for number, _ in sent]


async def test_only_right_answers_are_requests() -> None:
    """A server that answers every third request wrong, in turn: another id, an error, half a body and the end."""
    async with server() as port:
        measured = await load.run(
            Target(port, "/", calls.send("fine")), connections=2, seconds=0.3, warm_up=0.05, server=None
        )
    assert measured.requests > 0
    assert measured.errors.keys() == {"wrong id", "no result", "connection closed"}
    assert measured.first_error is not None
    assert measured.generator_cpu > 0
    assert measured.cpu_us is None


async def test_a_single_call_says_what_is_wrong() -> None:
    async with server() as port:
        found = [await load.one(Target(port, "/", calls.send("fine"))) for _ in range(9)]
    assert found.count(None) == 6
    assert {wrong for wrong in found if wrong} == {"wrong id", "no result", "connection closed"}


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                number = orjson.loads(await reader.readexactly(length))["id"]
                served += 1
                good = b'{"id":%d,"result":"fine"}' % number
                wrong = (b'{"id":0,"result":"fine"}', b'{"id":%d,"error":"fine"}' % number, good)
                body = wrong[served // 3 % 3] if served % 3 == 0 else good
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
                if served % 9 == 6:
                    writer.write(body[:-1])
                    break
                writer.write(body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([3.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_rounds_are_compared_with_their_neighbours() -> None:
    # The machine became half as fast after the first round: nothing happened to the ratio.
    assert ratios([300, 150, 140], [1000, 500, 500]) == Spread(0.28, 0.3, 0.3)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_a_pair_gives_a_ratio_and_what_is_added() -> None:
    def rounds(*requests: int, p50: float) -> list[Round]:
        return [Round(1.0, count, p50, p50, 0.1) for count in requests]

    found = comparison(rounds(30, 31, p50=1.5), rounds(100, 100, p50=0.25))
    assert found["ratio_by_cpu"] is None
    assert found["ratio"] == {"low": 0.3, "median": 0.305, "high": 0.31}
    assert found["added_p50_ms"]["median"] == 1.25
    assert comparison(rounds(30, p50=1), rounds(0, p50=1))["ratio"] is None


def test_errors_are_counted_however_deep() -> None:
    result = {"a": {"errors": {"wrong id": 2}, "first_error": "wrong id: x"}, "b": {"errors": {}, "first_error": None}}
    assert report.errors(result) == 2
    assert report.first_errors(result) == ["wrong id: x"]


def test_every_target_names_a_pair_and_a_better_side() -> None:
    known = targets.load()
    assert len(known) >= 10
    for target in known:
        assert target.of in PAIRS, target.what
        assert (target.then > target.now) == target.more_is_better, target.what


def test_a_target_is_reached_at_its_bound() -> None:
    more, less = targets.load(
        """
        [[target]]
        what = "more"
        of = "message"
        figure = "ratio"
        at_least = { now = 0.3, then = 0.5 }
        [[target]]
        what = "less"
        of = "added"
        figure = "a.cold_start_s"
        at_most = { now = 0.9, then = 0.4 }
        """
    )
    assert (more.reached(0.3), more.reached(0.29)) == (True, False)
    assert (less.reached(0.9), less.reached(0.91)) == (True, False)
    assert more.value({"ratio": {"low": 0.1, "median": 0.31, "high": 0.5}}) == 0.31
    assert more.value({"ratio": None}) is None
    assert less.value({"a": {"cold_start_s": 0.5}}) == 0.5


def test_names_are_not_used_twice() -> None:
    assert not SCENARIOS.keys() & PAIRS.keys()
    assert {name for pair in PAIRS.values() for name in (pair.a, pair.b)} <= SCENARIOS.keys()


def test_the_ratio_by_processor_time_does_not_see_a_server_that_waits() -> None:
    ours = Round(1.0, 100, 1, 1, 0.1, server_cpu_s=1.0)
    undisturbed, waiting = (Round(1.0, count, 1, 1, 0.1, server_cpu_s=count / 400) for count in (400, 200))
    for limit, by_clock in ((undisturbed, 0.25), (waiting, 0.5)):
        found = comparison([ours], [limit])
        assert found["ratio"]["median"] == by_clock
        assert found["ratio_by_cpu"]["median"] == 0.25


def test_what_is_sent_over_grpc_is_the_message_that_is_sent_otherwise() -> None:
    target = Target(1, "/", calls.grpc_send("", "echo", prefix="tck-message-response-"))
    sent = [SendMessageRequest.FromString(target.body()[1]) for _ in range(2)]
    for request in sent:
        assert (request.tenant, request.message.role) == ("echo", Role.ROLE_USER)
        assert [part.text for part in request.message.parts] == ["hello"]
        assert request.message.message_id.startswith("tck-message-response-")
    assert len({request.message.message_id for request in sent}) == 2
    assert SendMessageRequest.FromString(Target(1, "/", calls.grpc_send("")).body()[1]).tenant == ""


async def test_over_grpc_only_right_answers_are_counted() -> None:
    answers = [b"no", b"Hello World", b"Hello World"]

    async def play(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if not answers:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return answers.pop(0)

    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(play)
    handler = grpc.method_handlers_generic_handler("lf.a2a.v1.A2AService", {"SendMessage": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        target = Target(port, "/", calls.grpc_send("Hello World"))
        assert [await generators.one(target) for _ in range(2)] == ["expected text missing", None]
        made = await generators.run(target, connections=1, seconds=0.3, warm_up=0)
        assert (made.requests, made.first_error) == (1, "UNAVAILABLE: gone")
        assert made.errors.keys() == {"UNAVAILABLE"}
    finally:
        await server.stop(None)
