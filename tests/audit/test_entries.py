"""What an entry says of itself, as the writer makes it and as the verifier reads it."""

from __future__ import annotations

import json
import random
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway import verifier
from gateway.dialects.jcs import canonical
from gateway.model.audit import AuditEntry
from gateway.stores.auditlog import FORMAT, Place, entry_of, line
from gateway.verifier import FORMS, Database, Exit, Newer, Odd, Said, said, verify
from tests.audit.logs import Written, closed, entries, opened, write
from tests.serving import ROOT
from tests.stores.contract import NOW, entry

MORE: dict[str, Any] = {
    "chain": ("agent:asker", "oauth:https://idp.example#ann"),
    "client": "https://app.example/client.json",
    "task_id": "t",
    "digest": "ab" * 32,
    "length": 3,
    "correlation": "c",
    "cause": "r",
    "trace": "1" * 32,
    "policy": "p",
    "reason": 'a "reason" with ö',
    "upstream_hash": "h",
    "change": {"after": [{"log_id": "x", "v": 1.5}], "before": []},
    "marks": {"mask": "redacted", "log_id": "seen"},
}
"""What an entry may have beside what all have."""


def some(rng: random.Random) -> AuditEntry:
    return entry(**{name: value for name, value in MORE.items() if rng.random() < 0.5})


def test_every_entry_is_canonical_and_of_the_form_that_the_verifier_knows() -> None:
    rng, place = random.Random(1), Place("gw.example/audit-1", "r1")
    assert max(FORMS) == FORMAT
    for _ in range(500):
        made = some(rng)
        body = line(made, place)
        tree = json.loads(body)
        assert canonical(tree) == body
        found = entry_of(body)
        assert found == made
        assert found.stamp is not None
        assert said(body) == (b"gw.example/audit-1", b"%d" % found.stamp.mono, b"outcome", b"r1", b"req-1")


def test_the_quick_look_at_an_entry_finds_what_reading_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, place = random.Random(2), Place("gw.example/audit-1", "r1")
    bodies = [line(some(rng), place) for _ in range(300)]
    quick = [said(body) for body in bodies]
    slowly: list[bytes] = []
    read = verifier._said_slowly

    def watched(body: bytes) -> Said:
        slowly.append(body)
        return read(body)

    monkeypatch.setattr(verifier, "_said_slowly", watched)
    assert [said(body) for body in bodies] == quick
    for body in slowly:
        assert b'"change":' in body or b"\\" in body, "nothing else takes the time to be read"
    assert [read(body) for body in bodies] == quick


WHOLE = line(entry(), Place("gw.example/audit-1", "r1"))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"mono":', b'"when":', "`when` is not known"),
        (b'"phase":"outcome",', b"", "`phase` is missing"),
        (b'"at":', b'"at":-', ""),
        (b'"at":1764000000000', b'"at":"now"', "`at` has the wrong type"),
        (b'"at":1764000000000', b'"at":true', "`at` has the wrong type"),
        (b'"effect":"PASS",', b"", "`decision.effect` is missing"),
        (b'"sub":', b'"sub?":', "`actor.sub?` is not known"),
        (b'"sub":"key:ann"', b'"chain":["a",1],"sub":"key:ann"', "`actor.chain` has the wrong type"),
        (b'"v":2', b'"v":1', "is not known"),
        (b'"v":2', b'"v":"2"', "`v` is no number"),
        (b'"v":2', b'"v":-2', "`v` is no number"),
        (b"}", b"", "it cannot be read as JSON"),
        (WHOLE, b"[]", "`it` has the wrong type"),
        (WHOLE, b"[" * 100_000, "it cannot be read as JSON"),
        (b'"mono":', b'"mono":1' + b"0" * 5000, "it cannot be read as JSON"),
    ],
)
def test_what_is_no_entry_of_its_format_is_told_by_what_is_wrong(old: bytes, new: bytes, why: str) -> None:
    body = WHOLE.replace(old, new, 1)
    if why:
        with pytest.raises(Odd) as odd:
            said(body)
        assert why in str(odd.value)
    else:
        assert said(body)


def test_the_clock_of_a_replica_only_grows_however_often_it_is_read_and_set_back() -> None:
    times = iter((5_000, 5_000, 5_999, 7_000, 1_000, 9_000, 9_000))
    place = Place("gw.example/audit-1", "r1", lambda: next(times))
    assert [place.mono() for _ in range(6)] == [0, 1, 2, 3, 4, 5]


async def test_each_life_of_a_gateway_is_a_replica_of_its_own_in_one_log(tmp_path: Path) -> None:
    for life in ("first", "second"):
        store, notary = await opened(tmp_path, life)
        await write(store, 30, mark=life)
        await closed(store, notary)
    log = Written(tmp_path)
    trees = [json.loads(each) for each in entries(log.db)]
    assert {tree["log_id"] for tree in trees} == {log.head.origin}
    assert [tree["replica"] for tree in trees] == ["first"] * 30 + ["second"] * 30
    for one, other in pairwise(trees):
        assert one["mono"] < other["mono"] or one["replica"] != other["replica"]


async def test_entries_of_a_format_to_come_are_counted_and_not_condemned(tmp_path: Path) -> None:
    store, notary = await opened(tmp_path)
    await write(store, 10)
    body = WHOLE.replace(b'"v":2', b'"v":99')
    with pytest.raises(Newer):
        said(body)
    await store.write(lambda cursor: cursor.execute("INSERT INTO audit VALUES (11, 11, ?)", (body,)))
    notary.forsake()
    await store.aclose()
    store, notary = await opened(tmp_path)
    await notary.seal()
    await closed(store, notary)
    with closing(Database(tmp_path / "gateway.db")) as db:
        report = verify(db, Written(tmp_path).trust, now=NOW / 1000)
    assert (report.exit, report.notes) == (
        Exit.OK,
        ["1 entries are of a newer format: what they say was not looked at"],
    )


def names(form: object) -> set[str]:
    if not isinstance(form, dict):
        return set()
    return {name.rstrip("?") for name in form if name != "*"}.union(*map(names, form.values()))


def test_the_reference_has_every_field_of_an_entry() -> None:
    page = (ROOT / "docs" / "reference" / "audit.md").read_text()
    assert [name for name in sorted(names(FORMS[FORMAT])) if f"`{name}`" not in page] == []
