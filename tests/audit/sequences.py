"""What every `Sequence` does: the port's contract as tests. A log's test file imports the class and gives `log`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from gateway.stores.sequence import Deposed, Sequence, Turn


class Seat(Protocol):
    """One of those that could append, with a connection of its own."""

    @property
    def sequence(self) -> Sequence: ...

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def undo(self) -> None: ...

    def kill(self) -> None:
        """The connection breaks."""
        ...


class Log(Protocol):
    def enter(self) -> Seat: ...

    def entries(self) -> list[tuple[int, bytes]]:
        """All, each with its number."""
        ...


def append(seat: Seat, turn: Turn, *entries: bytes) -> Turn:
    seat.begin()
    try:
        turn = seat.sequence.append(turn, b"\n".join(entries))
    except Deposed:
        seat.undo()
        raise
    seat.commit()
    return turn


def numbered(*entries: bytes) -> list[tuple[int, bytes]]:
    return list(enumerate(entries, 1))


class SequenceContract:
    def test_entries_are_numbered_without_a_gap_across_those_who_append(self, log: Log) -> None:
        one, other = log.enter(), log.enter()
        turn = append(one, append(one, one.sequence.take_over(), b"a", b"b"), b"c")
        assert turn.end == 3
        later = other.sequence.take_over()
        assert (later.end, later.epoch > turn.epoch) == (3, True)
        append(other, later, b"d")
        assert log.entries() == numbered(b"a", b"b", b"c", b"d")

    @pytest.mark.security
    def test_who_was_deposed_appends_nothing_however_often_it_tries(self, log: Log) -> None:
        one, other = log.enter(), log.enter()
        turn = append(one, one.sequence.take_over(), b"a")
        later = other.sequence.take_over()
        for _ in range(3):
            with pytest.raises(Deposed):
                append(one, turn, b"zombie")
        append(other, later, b"b")
        with pytest.raises(Deposed):
            append(one, turn, b"zombie")
        assert log.entries() == numbered(b"a", b"b")

    @pytest.mark.security
    def test_a_take_over_waits_for_the_append_that_is_under_way_and_goes_on_behind_it(self, log: Log) -> None:
        one, other = log.enter(), log.enter()
        turn = one.sequence.take_over()
        one.begin()
        turn = one.sequence.append(turn, b"a\nb")
        with ThreadPoolExecutor(1) as pool:
            taking = pool.submit(other.sequence.take_over)
            with pytest.raises(TimeoutError):
                taking.result(0.3)
            one.commit()
            assert taking.result(10).end == 2
        with pytest.raises(Deposed):
            append(one, turn, b"zombie")
        assert log.entries() == numbered(b"a", b"b")

    def test_of_an_append_that_was_cut_off_nothing_is_left(self, log: Log) -> None:
        one, other = log.enter(), log.enter()
        turn = append(one, one.sequence.take_over(), b"a")
        one.begin()
        one.sequence.append(turn, b"never")
        one.kill()
        append(other, other.sequence.take_over(), b"b")
        assert log.entries() == numbered(b"a", b"b")

    @pytest.mark.security
    def test_many_that_depose_one_another_all_the_time_write_one_log(self, log: Log) -> None:
        acknowledged: list[bytes] = []
        guard = threading.Lock()

        def work(name: int, seat: Seat) -> None:
            for turns in range(12):
                turn = seat.sequence.take_over()
                for each in range(6):
                    entry = b"%d-%d-%d" % (name, turns, each)
                    try:
                        turn = append(seat, turn, entry)
                    except Deposed:
                        break
                    with guard:
                        acknowledged.append(entry)

        with ThreadPoolExecutor(3) as pool:
            for job in [pool.submit(work, number, log.enter()) for number in range(3)]:
                job.result()
        found = log.entries()
        assert [number for number, _ in found] == list(range(1, len(found) + 1))
        assert sorted(entry for _, entry in found) == sorted(acknowledged)
        assert acknowledged
