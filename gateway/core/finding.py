"""Finding agents by what they and their skills are said to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gateway.core.ranking import NAME_WEIGHT, Index, words
from gateway.core.registry import Registered
from gateway.model.card import AgentCard, AgentSkill
from gateway.model.errors import invalid
from gateway.model.value import value

MAX_QUERY = 1_000  # characters: a paragraph
MAX_RESULTS = 50  # of one search; who needs more should ask again, in other words
DEFAULT_RESULTS = 10

_SKILL = "/"  # between an agent's id and its skill's: ids of agents have none


@value
class Found:
    """An agent, and those of its skills that fit, the best first."""

    entry: Registered
    skills: tuple[AgentSkill, ...]


class Finder:
    """Keeps its index until a card changes. It knows all agents; what a caller may see is asked for each answer."""

    def __init__(self) -> None:
        self._cards: list[AgentCard] = []
        self._index = Index(())

    def find(
        self, entries: Sequence[Registered], cards: Mapping[str, AgentCard], query: str, limit: int
    ) -> list[Found]:
        """The agents that fit best, the best first; an agent is as good as the best of its skills. `cards` are what the
        caller may see of those that it may see. Raises INVALID_PARAMS."""
        if not query.strip() or len(query) > MAX_QUERY:
            raise invalid("query", f"must be 1 to {MAX_QUERY} characters")
        if not 1 <= limit <= MAX_RESULTS:
            raise invalid("limit", f"must be 1 to {MAX_RESULTS}")
        known = {entry.id: entry for entry in entries if entry.card is not None}
        self._look(known)
        found: dict[str, list[str]] = {}
        for name in self._index.find(query, len(known) * 1000):
            agent, _, skill = name.partition(_SKILL)
            card = cards.get(agent)
            # Of most cards everything is seen, and nothing needs to be looked for.
            if card is not None and (not skill or card is known[agent].card or any(s.id == skill for s in card.skills)):
                found.setdefault(agent, []).extend([skill] if skill else [])
        return [Found(known[id], tuple(_skills(known[id], skills))) for id, skills in [*found.items()][:limit]]

    def _look(self, known: dict[str, Registered]) -> None:
        cards = [entry.card for entry in known.values() if entry.card is not None]
        if len(cards) != len(self._cards) or any(a is not b for a, b in zip(cards, self._cards, strict=True)):
            self._cards, self._index = cards, Index(_documents(known.values()))


def _skills(entry: Registered, ids: Iterable[str]) -> Iterable[AgentSkill]:
    assert entry.card is not None
    by_id = {skill.id: skill for skill in entry.card.skills}
    return (by_id[id] for id in ids)


def _documents(entries: Iterable[Registered]) -> Iterable[tuple[str, Iterable[str]]]:
    for entry in entries:
        card = entry.card
        assert card is not None
        yield entry.id, [*words(f"{entry.id} {card.name}") * NAME_WEIGHT, *words(card.description)]
        for skill in card.skills:
            said = " ".join((skill.description, *(skill.examples or ())))
            named = words(" ".join((skill.id, skill.name, *skill.tags))) * NAME_WEIGHT
            yield f"{entry.id}{_SKILL}{skill.id}", [*named, *words(said)]
