"""Finding things by what they are said to do: BM25 over words (Robertson and Zaragoza 2009, with their constants)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

_K1, _B = 1.2, 0.75
NAME_WEIGHT = 3  # a word of the name says more than one of the description
_SEAM = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\D)(?=\d)|(?<=\d)(?=\D)")
_WORD = re.compile(r"[^\W_]+")
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ed", "es", "s", "e", "y")
_EMPTY = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "at",
        "by",
        "can",
        "do",
        "for",
        "from",
        "i",
        "in",
        "is",
        "it",
        "me",
        "my",
        "of",
        "on",
        "or",
        "please",
        "that",
        "the",
        "this",
        "to",
        "we",
        "with",
        "you",
    ]
)


class Index:
    """Things by name, each with the words that speak for it."""

    def __init__(self, things: Iterable[tuple[str, Iterable[str]]]) -> None:
        self._words = {name: Counter(said) for name, said in things}
        self._lengths = {name: sum(words.values()) for name, words in self._words.items()}
        self._mean = sum(self._lengths.values()) / max(1, len(self._lengths))
        spread = Counter(word for words in self._words.values() for word in words)
        count = len(self._words)
        self._weight = {word: math.log(1 + (count - n + 0.5) / (n + 0.5)) for word, n in spread.items()}

    def find(self, query: str, limit: int) -> list[str]:
        """The names that fit best, the best first; none that shares no word with the query."""
        wanted = set(words(query))
        scores = {name: self._score(name, wanted) for name in self._words}
        ranked = sorted((name for name, score in scores.items() if score > 0), key=lambda name: (-scores[name], name))
        return ranked[:limit]

    def _score(self, name: str, wanted: set[str]) -> float:
        found = self._words[name]
        length = _K1 * (1 - _B + _B * self._lengths[name] / self._mean)
        return sum(
            self._weight[word] * found[word] * (_K1 + 1) / (found[word] + length) for word in wanted if word in found
        )


def words(text: str) -> list[str]:
    """The words of a text, of names in camelCase and snake_case too, without their endings."""
    return [_stem(word.lower()) for word in _WORD.findall(_SEAM.sub(" ", text)) if word.lower() not in _EMPTY]


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
