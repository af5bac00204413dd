"""Librarian through a real Context, on folders made for each test: what it finds, asks, and refuses to read."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import librarian
from agents.librarian import Librarian, folder, index
from agents.librarian.folder import read, walk
from agents.librarian.passages import PASSAGE_CHARS_MAX, passages
from agents.librarian.words import searchable, understand
from gateway.model.agent import Context
from gateway.model.message import Artifact, Message, Part, Role
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, Task, TaskState, TaskStatus

NOW_MS = 1_763_712_000_000
COMPLETED, INPUT_REQUIRED, FAILED = TaskState.COMPLETED, TaskState.INPUT_REQUIRED, TaskState.FAILED


class Desk:
    """A folder, the librarian who knows it, and the task that is talked about. Time passes only when told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.librarian = Librarian(str(folder), **settings)
        self.now_ms = NOW_MS
        self.ids = map("id-{}".format, itertools.count(1))
        self.open()

    def open(self) -> None:
        self.task = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.SUBMITTED))

    def put(self, path: str, content: str | bytes) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def run(self, *parts: Part) -> AsyncIterator[Event]:
        context = Context(
            agent="librarian",
            task_id="t",
            context_id="c",
            now=lambda: self.now_ms,
            new_id=lambda: next(self.ids),
            task=self.task,
        )
        return self.librarian.run(context, Message(message_id="m", role=Role.USER, parts=parts))

    async def ask(self, content: str | Part) -> TaskState:
        """One turn. Every event is applied, so an illegal one fails the test that meets it."""
        if self.task.status.state.terminal:
            self.open()
        async for event in self.run(Part(text=content) if isinstance(content, str) else content):
            assert isinstance(event, StatusUpdate | ArtifactUpdate)
            assert json.loads(event.wire())
            self.task = self.task.apply(event)
        self.now_ms += index.REFRESH_MS
        return self.task.status.state

    @property
    def said(self) -> str:
        assert self.task.status.message is not None
        return self.task.status.message.text

    @property
    def progress(self) -> list[str]:
        return [message.text for message in self.task.history or () if message.role is Role.AGENT]

    @property
    def quotes(self) -> tuple[Artifact, ...]:
        return self.task.artifacts or ()

    @property
    def names(self) -> list[str | None]:
        return [quote.name for quote in self.quotes]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    (tmp_path / "docs").mkdir()
    desk = Desk(tmp_path / "docs")
    yield desk
    await desk.librarian.aclose()


# --- What it finds. ----------------------------------------------------------------------------------------


async def test_a_quote_names_file_and_line_and_stands_in_an_artifact(desk: Desk) -> None:
    desk.put("guide/push.md", "# Push\n\nIntro.\n\n## Retries\n\nA webhook is tried\nfive times.\n")
    assert await desk.ask("How often is a webhook tried?") is COMPLETED
    [quote] = desk.quotes
    assert (quote.artifact_id, quote.name, quote.description) == ("quote-1", "guide/push.md:7", "Push › Retries")
    assert [part.text for part in quote.parts] == ["A webhook is tried\nfive times."]
    assert quote.metadata is not None
    assert (quote.metadata["file"], quote.metadata["line"]) == ("guide/push.md", 7)
    assert desk.said == "1 passage for often, webhook, tried, best first: guide/push.md:7. Not found: often."


async def test_progress_says_what_is_searched_and_for_what(desk: Desk) -> None:
    desk.put("a.md", "alpha beta")
    await desk.ask("alpha and beta")
    assert desk.progress == ["Searching 1 file for: alpha, beta."]


async def test_a_word_of_the_heading_finds_the_paragraphs_below(desk: Desk) -> None:
    desk.put("a.md", "# Installation\n\nRun make.\n")
    await desk.ask("installation steps")
    assert desk.names == ["a.md:3"]


async def test_the_best_passages_come_first_and_no_more_than_asked_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path, quotes=2)
    desk.put("a.md", "one fox\n\ntwo fox fox\n\nthree fox fox fox\n")
    await desk.ask("fox jumps")
    assert desk.names == ["a.md:5", "a.md:3"]
    scores = [quote.metadata["score"] for quote in desk.quotes if quote.metadata]
    assert scores == sorted(scores, reverse=True)
    await desk.librarian.aclose()


async def test_equal_passages_are_ordered_by_file_and_line(desk: Desk) -> None:
    for name in ("b.md", "a.md"):
        desk.put(name, "same words\n\nsame words\n")
    await desk.ask("same words")
    assert desk.names == ["a.md:1", "a.md:3", "b.md:1", "b.md:3"]


async def test_words_that_only_begin_so_are_found_when_nothing_else_is(desk: Desk) -> None:
    desk.put("a.md", "Configuration lies in one file.\n")
    await desk.ask("config")
    assert desk.names == ["a.md:1"]


async def test_without_a_passage_that_has_all_words_the_summary_says_so(desk: Desk) -> None:
    desk.put("a.md", "red apple\n\ngreen pear\n")
    await desk.ask("red pear")
    assert set(desk.names) == {"a.md:1", "a.md:3"}
    assert desk.said.endswith("No passage has all of these words.")


@pytest.mark.parametrize("question", ["Müller", "muller", "MÜLLER", "Mu\u0308ller"])
async def test_accents_and_case_do_not_matter(desk: Desk, question: str) -> None:
    desk.put("a.md", "Frau Müller weiß es.\n")
    await desk.ask(question)
    assert desk.names == ["a.md:1"]


async def test_german_and_english_stop_words_are_not_searched(desk: Desk) -> None:
    desk.put("a.md", "Schlüssel\n\nthe what where und der die das\n")
    await desk.ask("Wo ist denn der Schlüssel, and what is the Schlüssel?")
    assert desk.names == ["a.md:1"]


async def test_nothing_found_is_an_answer_and_names_the_words(desk: Desk) -> None:
    desk.put("a.md", "text")
    assert await desk.ask("zebra quagga") is COMPLETED
    assert desk.said == "Nothing found for: zebra, quagga. Searched 1 file."
    assert desk.quotes == ()


async def test_an_empty_folder_has_nothing(desk: Desk) -> None:
    assert await desk.ask("anything") is COMPLETED
    assert desk.said == "Nothing found for: anything. Searched 0 files."


# --- What it asks back. ------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", ["", "what is the", "???", "🙂", "\x00", "der die das", "'s"])
async def test_a_question_without_a_word_to_look_for_is_asked_back(desk: Desk, question: str) -> None:
    desk.put("a.md", "apple")
    assert await desk.ask(question) is INPUT_REQUIRED
    assert desk.said == "What shall I look for? Name a word or two."
    assert await desk.ask("apple") is COMPLETED
    assert desk.names == ["a.md:1"]


async def test_a_message_without_any_text_is_asked_back(desk: Desk) -> None:
    assert await desk.ask(Part(raw="AAE=")) is INPUT_REQUIRED


@pytest.fixture
async def fruit(desk: Desk) -> Desk:
    for name in ("a.md", "b/pear.md", "c.md"):
        desk.put(name, "The fruit is ripe.\n")
    desk.put("c.md", "The fruit is ripe.\n\nMore about other things, also fruit and its long winter sleep.\n")
    assert await desk.ask("fruit") is INPUT_REQUIRED
    return desk


async def test_one_word_that_several_documents_answer_equally_well_is_asked_back(fruit: Desk) -> None:
    assert fruit.said.splitlines() == [
        "Several documents speak of fruit. Which one do you mean?",
        "1. a.md",
        "2. b/pear.md",
        "3. c.md",
        "Answer with a number, a name, or more words.",
    ]
    assert fruit.task.status.message is not None
    metadata = fruit.task.status.message.metadata or {}
    assert metadata["schema"]["properties"]["document"]["enum"] == ["a.md", "b/pear.md", "c.md"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("2", ["b/pear.md:1"]),
        ("#2", ["b/pear.md:1"]),
        ("2.", ["b/pear.md:1"]),
        ("b/pear.md", ["b/pear.md:1"]),
        ("Pear.md", ["b/pear.md:1"]),
        ("pear", ["b/pear.md:1"]),
        ("winter sleep", ["c.md:3"]),
    ],
)
async def test_a_number_a_name_or_more_words_narrow_the_search(fruit: Desk, answer: str, found: list[str]) -> None:
    assert await fruit.ask(answer) is COMPLETED
    assert fruit.names == found


@pytest.mark.parametrize(("form", "found"), [({"document": "a.md"}, ["a.md:1"]), ({"words": "winter"}, ["c.md:3"])])
async def test_a_filled_form_is_an_answer_too(fruit: Desk, form: dict[str, str], found: list[str]) -> None:
    assert await fruit.ask(Part(data=form)) is COMPLETED
    assert fruit.names == found


@pytest.mark.parametrize("answer", ["0", "4", "999", "", "the", "?"])
async def test_an_answer_that_chooses_nothing_is_asked_again(fruit: Desk, answer: str) -> None:
    assert await fruit.ask(answer) is INPUT_REQUIRED
    assert await fruit.ask("1") is COMPLETED
    assert fruit.names == ["a.md:1"]


async def test_a_chosen_document_that_has_gone_meanwhile_is_not_quoted(fruit: Desk) -> None:
    (fruit.folder / "a.md").unlink()
    assert await fruit.ask("1") is COMPLETED
    assert fruit.said == "Nothing found for: fruit. Searched a.md."


async def test_a_run_that_died_after_the_answer_still_knows_the_question(fruit: Desk) -> None:
    async for event in fruit.run(Part(text="2")):
        assert isinstance(event, StatusUpdate)
        fruit.task = fruit.task.apply(event)  # the first report of progress is stored, then the power goes
        break
    assert await fruit.ask("2") is COMPLETED
    assert fruit.names == ["b/pear.md:1"]


async def test_a_second_run_of_the_same_question_leaves_the_same_quotes(desk: Desk) -> None:
    desk.put("a.md", "apple pie\n\napple pie too\n")
    first = [event async for event in desk.run(Part(text="apple pie"))]
    for event in (*first[:2], *first):
        assert isinstance(event, StatusUpdate | ArtifactUpdate)
        desk.task = desk.task.apply(event)
    assert desk.names == ["a.md:1", "a.md:3"]


async def test_two_documents_are_quoted_without_asking(desk: Desk) -> None:
    desk.put("a.md", "fruit")
    desk.put("b.md", "fruit")
    assert await desk.ask("fruit") is COMPLETED


async def test_a_document_that_is_clearly_the_best_is_quoted_without_asking(desk: Desk) -> None:
    desk.put("best.md", "fruit fruit fruit")
    for name in ("b.md", "c.md", "d.md"):
        desk.put(name, "fruit " + "and many other words that say nothing of it " * 5)
    assert await desk.ask("fruit") is COMPLETED
    assert desk.names[0] == "best.md:1"


@pytest.mark.parametrize(
    "resume", ["x", 1, [], {}, {"words": []}, {"words": ["a"]}, {"choices": []}, {"words": ["x"], "choices": []}]
)
def test_something_else_put_aside_makes_the_message_a_question(resume: Any) -> None:
    assert understand("apple pie", resume).words == ("apple", "pie")


# --- What changes in the folder. ---------------------------------------------------------------------------


async def test_new_changed_and_removed_files_are_seen(desk: Desk) -> None:
    desk.put("a.md", "old words\n")
    desk.put("b.md", "other\n")
    await desk.ask("old words")
    assert desk.names == ["a.md:1"]
    desk.put("a.md", "\n\nnew words, longer\n")
    (desk.folder / "b.md").unlink()
    desk.put("c.md", "words that are new\n")
    await desk.ask("new words")
    assert set(desk.names) == {"a.md:3", "c.md:1"}
    await desk.ask("old")
    assert desk.said == "Nothing found for: old. Searched 2 files."


async def test_the_folder_is_looked_at_only_every_few_seconds(desk: Desk) -> None:
    await desk.ask("apple")
    desk.now_ms -= 1
    desk.put("a.md", "apple")
    await desk.ask("apple")
    assert desk.names == []
    await desk.ask("apple")
    assert desk.names == ["a.md:1"]


async def test_a_clock_that_is_set_back_does_not_stop_the_looking(desk: Desk) -> None:
    await desk.ask("apple")
    desk.now_ms = NOW_MS - 86_400_000
    desk.put("a.md", "apple")
    await desk.ask("apple")
    assert desk.names == ["a.md:1"]


async def test_a_file_removed_between_the_look_and_the_reading_is_left_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.put("a.md", "apple")
    desk.put("gone.md", "apple")

    def late(root: Path, path: str) -> bytes:
        if path == "gone.md":
            (root / path).unlink()
        return read(root, path)

    monkeypatch.setattr(index, "read", late)
    assert await desk.ask("apple") is COMPLETED
    assert desk.names == ["a.md:1"]
    assert "1 file (skipped: 1 unreadable)" in desk.progress[-1]


async def test_a_folder_that_is_gone_fails_the_task_without_naming_the_path(desk: Desk) -> None:
    desk.folder.rmdir()
    assert await desk.ask("apple") is FAILED
    assert desk.said == "The folder of documents cannot be read at the moment."
    desk.put("a.md", "apple")
    assert await desk.ask("apple") is COMPLETED
    assert desk.names == ["a.md:1"]


# --- What hostile folders and questions try. ---------------------------------------------------------------


@pytest.mark.security
async def test_links_out_of_the_folder_and_linked_folders_are_not_followed(desk: Desk) -> None:
    outside = desk.folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("secret apple")
    inside = desk.put("inside/a.md", "apple")
    (desk.folder / "out.md").symlink_to(outside / "secret.md")
    (desk.folder / "up.md").symlink_to("../outside/secret.md")
    (desk.folder / "out").symlink_to(outside)
    (desk.folder / "again").symlink_to(inside.parent)
    (desk.folder / "loop.md").symlink_to("loop.md")
    await desk.ask("secret apple")
    assert desk.names == ["inside/a.md:1"]
    assert "1 file (skipped: 5 links out of the folder or to folders)" in desk.progress[-1]


async def test_a_link_to_a_file_inside_the_folder_is_read(desk: Desk) -> None:
    # As Kubernetes mounts a ConfigMap: page.md -> ..data/page.md, ..data -> ..2026_11_21.
    desk.put("..2026_11_21/page.md", "apple")
    (desk.folder / "..data").symlink_to("..2026_11_21")
    (desk.folder / "page.md").symlink_to("..data/page.md")
    await desk.ask("apple")
    assert desk.names == ["page.md:1"]


@pytest.mark.security
async def test_a_folder_of_a_similar_name_is_outside(desk: Desk) -> None:
    sibling = desk.folder.with_name("docs-private")
    sibling.mkdir()
    (sibling / "a.md").write_text("apple")
    (desk.folder / "a.md").symlink_to(sibling / "a.md")
    await desk.ask("apple")
    assert desk.names == []


@pytest.mark.security
@pytest.mark.parametrize("swapped", ["sub/a.md", "sub"])
async def test_what_is_swapped_for_a_link_after_the_look_is_not_read(desk: Desk, swapped: str) -> None:
    outside = desk.folder.parent / "outside"
    outside.mkdir()
    (outside / "a.md").write_text("secret")
    desk.put("sub/a.md", "apple")
    [document] = [item for item in walk(desk.folder) if not isinstance(item, str)]
    (desk.folder / swapped).rename(desk.folder / "away")
    (desk.folder / swapped).symlink_to(outside / "a.md" if swapped.endswith(".md") else outside)
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        read(desk.folder, document.target)


@pytest.mark.security
async def test_a_named_pipe_does_not_hold_the_librarian(desk: Desk) -> None:
    os.mkfifo(desk.folder / "pipe.md")
    with pytest.raises(OSError, match="not a file"):
        read(desk.folder, "pipe.md")
    async with asyncio.timeout(5):
        assert await desk.ask("apple") is COMPLETED


async def test_binaries_and_large_files_are_skipped_and_counted_and_hidden_ones_are_not_mentioned(
    desk: Desk,
) -> None:
    desk.put("a.md", "apple")
    desk.put("nul.md", b"apple\0pie")
    desk.put("late-nul.md", b"apple " * 3000 + b"\0")
    desk.put("latin-1.md", b"apple gr\xfc\xdfe")
    desk.put("large.md", b"apple " * 400_000)
    desk.put(".hidden.md", "apple")
    desk.put(".git/config.md", "apple")
    await desk.ask("apple")
    assert desk.names == ["a.md:1"]
    assert "1 file (skipped: 3 not text, 1 too large)" in desk.progress[-1]


@pytest.mark.security
async def test_names_that_cannot_be_shown_are_skipped(desk: Desk) -> None:
    desk.put("good name ü.md", "apple")
    for name in (b"not-utf8-\xff.md", b"line\nbreak.md", "turned-\u202egnp.md".encode()):
        desk.put(os.fsdecode(name), "apple")
    await desk.ask("apple")
    assert desk.names == ["good name ü.md:1"]
    assert "1 file (skipped: 3 oddly named)" in desk.progress[-1]


@pytest.mark.parametrize(("limit", "value"), [("FILES_MAX", 2), ("TOTAL_BYTES_MAX", 14), ("ENTRIES_MAX", 2)])
async def test_files_beyond_a_limit_are_left_out_in_a_fixed_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    for name in ("d.md", "b.md", "a.md", "c.md")[: 4 if limit != "ENTRIES_MAX" else 2]:
        desk.put(name, "apple\n")
    desk.put("e/e.md", "apple\n")
    monkeypatch.setattr(folder if limit == "ENTRIES_MAX" else index, limit, value)
    await desk.ask("apple pie")
    assert len(desk.names) == 2
    assert "2 files (skipped: 1 or more beyond the limits)" in desk.progress[-1]


@pytest.mark.security
@pytest.mark.parametrize(
    "question",
    [
        'apple" OR "pear',
        "apple AND",
        "NOT apple",
        "NEAR(apple pear, 5)",
        "text:apple",
        "{text heading} : apple",
        "- apple",
        "^apple*",
        "apple' ; DROP TABLE passages; --",
        "apple\x00pear",
        '""""',
        "(((",
        "apple +",
        "a" * 100_000,
        "apple " * 5000,
        "!" * 4000 + "a",
        "*",
        "\ud800 apple",
        "\u202eapple\u202c",
        "٣ apple Ⅷ",
    ],
)
async def test_nothing_in_a_question_is_an_operator(desk: Desk, question: str) -> None:
    desk.put("a.md", "apple\n")
    desk.put("b.md", "pear\n")
    assert await desk.ask(question) in (COMPLETED, INPUT_REQUIRED)
    desk.open()
    await desk.ask("pear")
    assert desk.names == ["b.md:1"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(question=st.text(alphabet=st.characters(), max_size=60))
def test_any_question_has_an_end(tmp_path: Path, question: str) -> None:
    (tmp_path / "a.md").write_text("apple\n")
    shelf = index.Index(tmp_path)
    assert list(shelf.refresh(NOW_MS)) == [0]
    words = searchable(question.encode("utf-8", "replace").decode())
    if words:
        shelf.search(words)
    shelf.close()


@pytest.mark.security
async def test_markup_that_is_made_to_be_slow_is_not(desk: Desk) -> None:
    desk.put("a.md", "# " + " #" * 500_000 + "x\n\n```\n" + "`" * 500_000 + "\n" + " " * 500_000 + "apple\n")
    async with asyncio.timeout(10):
        await desk.ask("apple")
    assert [quote.metadata["line"] for quote in desk.quotes if quote.metadata] == [5]
    assert all(len(part.text or "") <= PASSAGE_CHARS_MAX for quote in desk.quotes for part in quote.parts)


# --- Threads and cancelling. -------------------------------------------------------------------------------


async def test_the_loop_runs_on_and_progress_is_reported_while_files_are_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(librarian, "SLICE_S", 0.0)
    threads = set()

    def seen(root: Path, path: str) -> bytes:
        threads.add(threading.current_thread())
        return read(root, path)

    monkeypatch.setattr(index, "read", seen)
    for number in range(3):
        desk.put(f"{number}.md", "apple pie")
    await desk.ask("apple pie")
    assert desk.progress == [
        *(f"Indexing: {number} files so far." for number in range(3)),
        "Searching 3 files for: apple, pie.",
    ]
    assert threading.main_thread() not in threads
    assert len(threads) == 1


async def test_a_cancelled_run_stops_between_two_files_and_the_next_goes_on_from_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        desk.put(f"{number}.md", "apple pie")
    loop, reading, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    files: list[str] = []

    def slow(root: Path, path: str) -> bytes:
        files.append(path)
        loop.call_soon_threadsafe(reading.set)
        assert go_on.wait(5)
        return read(root, path)

    monkeypatch.setattr(index, "read", slow)
    monkeypatch.setattr(librarian, "SLICE_S", 0.0)
    async with asyncio.timeout(10):
        run = asyncio.create_task(desk.ask("apple pie"))
        await reading.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run  # at once, though the thread still reads
        go_on.set()
        assert await desk.ask("apple pie") is COMPLETED
    assert files == [f"{number}.md" for number in range(5)]


async def test_many_runs_at_once_share_one_index(desk: Desk) -> None:
    for number in range(20):
        desk.put(f"{number}.md", f"apple number{number}")

    async def one(number: int) -> list[str | None]:
        events = [event async for event in desk.run(Part(text=f"apple number{number}"))]
        return [event.artifact.name for event in events if isinstance(event, ArtifactUpdate)]

    assert await asyncio.gather(*map(one, range(20))) == [[f"{number}.md:1"] for number in range(20)]


async def test_closing_bears_being_called_unused_and_twice(tmp_path: Path) -> None:
    unused = Librarian(str(tmp_path))
    await unused.aclose()
    await unused.aclose()


# --- Paragraphs. -------------------------------------------------------------------------------------------


def test_markdown_is_cut_at_headings_and_empty_lines_and_keeps_fenced_blocks_whole() -> None:
    text = "# A #\none\ntwo\n\n## B\n\n```sh\n# no heading\n\nmake\n```\n### C\n# D\nlast"
    assert list(passages(text, markdown=True)) == [
        (2, "A", "one\ntwo"),
        (7, "A › B", "```sh\n# no heading\n\nmake\n```"),
        (14, "D", "last"),
    ]


def test_other_texts_have_no_headings() -> None:
    assert list(passages("# a\n\n```\n\nb", markdown=False)) == [(1, "", "# a"), (3, "", "```"), (5, "", "b")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_editors_count_them(end: str) -> None:
    text = end.join(["a\x0b\x0c\u2028\x85b", "", "c"])
    assert [line for line, _, _ in passages(text, markdown=True)] == [1, 3]


def test_no_passage_is_longer_than_a_quote_and_nothing_is_lost() -> None:
    text = "\n".join(["x" * 5001, *(f"line {number}" for number in range(100))])
    found = list(passages(text, markdown=True))
    assert all(len(passage) <= PASSAGE_CHARS_MAX for _, _, passage in found)
    assert "".join(passage for _, _, passage in found).replace("\n", "") == text.replace("\n", "")
    assert [line for line, _, _ in found][:3] == [1, 1, 1]


@given(text=st.text(alphabet="ab #`~\n\r", max_size=200))
def test_every_passage_begins_on_its_line(text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line, _, passage in passages(text, markdown=True):
        assert passage.split("\n")[0] == lines[line - 1]


# --- The operator's settings. ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Librarian(""), "folder: must be the path"),
        (lambda: Librarian(7), "folder: must be the path"),  # type: ignore[arg-type]
        (lambda: Librarian("a\0b"), "folder: must be the path"),
        (lambda: Librarian("/no/such/folder"), "folder: /no/such/folder is not a folder"),
        (lambda: Librarian(__file__), "is not a folder"),
        (lambda: Librarian("/", quotes=0), "quotes: must be a whole number from 1 to 20"),
        (lambda: Librarian("/", quotes=True), "quotes: must be"),
        (lambda: Librarian("/", quotes="5"), "quotes: must be"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_setting_is_named(make: Callable[[], Librarian], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


async def test_a_relative_folder_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("apple")
    desk = Desk(tmp_path / "docs")
    desk.librarian = Librarian("docs", base=tmp_path)
    await desk.ask("apple")
    assert desk.names == ["a.md:1"]
    await desk.librarian.aclose()
