"""What somebody wants to know, as words to look for."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gateway.model.message import Message

QUESTION_CHARS_MAX = 4000
WORDS_MAX = 16
WORD_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for: the words, perhaps in one `file` only, and the `choices` if an answer chose none."""

    words: tuple[str, ...]
    file: str | None = None
    choices: tuple[str, ...] = ()


def said(message: Message) -> str:
    """The answer of a form (the schemas of the agent's questions) or the text, made safe to hand to SQLite."""
    forms = [part.data for part in message.parts if isinstance(part.data, dict)]
    filled = [form[key] for form in forms for key in ("document", "words") if isinstance(form.get(key), str)]
    whole: str = filled[0] if filled else message.text
    whole = whole[:QUESTION_CHARS_MAX].encode("utf-8", "replace").decode()  # lone surrogates become "?"
    return unicodedata.normalize("NFC", whole).strip()


def understand(said: str, resume: Any) -> Wanted:
    """A question, or the answer to the one before: a number, a document's name, or more words."""
    words, choices = _texts(resume, "words"), _texts(resume, "choices")
    if not choices:
        return Wanted(searchable(said))
    if number := re.fullmatch(r"#?([0-9]{1,3})[.)]?", said):
        nth = int(number[1])
        chosen = choices[nth - 1 : nth] if nth else ()
    else:
        chosen = tuple(choice for choice in choices if said.casefold() in _names(choice))
        more = searchable(said)
        if not chosen and more:
            return Wanted(tuple(dict.fromkeys((*words, *more)))[:WORDS_MAX])
    return Wanted(words, file=chosen[0]) if len(chosen) == 1 else Wanted(words, choices=choices)


def _texts(resume: Any, key: str) -> tuple[str, ...]:
    kept: dict[str, list[str]] = resume if isinstance(resume, dict) else {}
    return tuple(kept.get(key, ()))


def _names(document: str) -> set[str]:
    path = PurePosixPath(document.casefold())
    return {str(path), path.name, path.stem}


def searchable(text: str) -> tuple[str, ...]:
    """The words worth looking for. Control characters part words: a NUL would end SQLite's reading early."""
    words: dict[str, str] = {}
    for whole in re.split(r"[\s\x00-\x1f\x7f\"]+", text):
        chunk = whole[:WORD_CHARS_MAX]
        letters = re.findall(r"[^\W_]+", chunk.casefold())
        if letters and not all(piece in STOP_WORDS for piece in letters):
            word = re.sub(r"^[\W_]+|[\W_]+$", "", chunk)
            words.setdefault(word.casefold(), word)
    return tuple(words.values())[:WORDS_MAX]


# Words that stand in every document of the language; single letters are what apostrophes leave ("what's").
_STOP_WORDS = """
a about all also am an and any are as at be been but by can could d did do does for from give had has have he
her him his how i if in into is it its just let ll m me my no not of on or our please re s shall she should so
some t tell than that the their them then there these they this those to too us ve was we were what when where
which while who whom whose why will with would you your
aber alle als am an auch auf aus bei bin bis bitte da das dass dein dem den denn der des die dies diese dieser
dieses doch du durch ein eine einem einen einer eines er es etwas für gibt hat habe haben ich ihr im in ist ja
kann kein keine können man mein mich mir mit muss nach nein nicht noch nur ob oder sein sich sie sind so soll
über um und uns unter vom von vor war warum was wenn wer werden wie wieso wir wird wo wofür womit zu zum zur
"""


STOP_WORDS = frozenset(_STOP_WORDS.split())
