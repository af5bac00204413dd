"""How much work a JSON Schema can make, before it is let at any value: schemas come from strangers too (security.md
T16). Two kinds grow without measure, and both are refused: references among schemas for the *same* value that double
with each step or lead back to where they began; and trees in which one value leads back to the circle by two ways, so
that each level of the value doubles the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_SCHEMAS = 512  # in one schema; the largest of a real tool has some 100
MAX_DEPTH = 64  # steps of a pointer
MAX_WORK = 10_000  # schemas that one value can be held against, references followed

# Keywords that hold schemas for the same value: one, a list, by name.
_SAME = (("not", "if", "then", "else"), ("allOf", "anyOf", "oneOf"), ("dependentSchemas",))
# Keywords for parts of it, in groups. Within a group each part meets one schema; groups overlap.
_PARTS = (
    (("items", "additionalItems"), ("prefixItems", "items"), ()),
    (("contains",), (), ()),
    (("unevaluatedItems",), (), ()),
    (("additionalProperties",), (), ("properties",)),
    (("unevaluatedProperties",), (), ()),
    (("propertyNames",), (), ()),
)
_OVERLAPPING = "patternProperties"  # each of its patterns is a group
_KEPT = ("$defs", "definitions")  # there until somebody refers to them
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

Nodes = Mapping[str, Mapping[str, Any]]


def measure(root: Any) -> None:
    """Raises ValueError, saying what is too much, for a schema that is not safe to use."""
    nodes = dict(_nodes(root))
    if len(nodes) > MAX_SCHEMAS:
        raise ValueError(f"has more than {MAX_SCHEMAS} schemas in it")
    if any(where.count("/") > MAX_DEPTH for where in nodes):
        raise ValueError(f"has schemas more than {MAX_DEPTH} steps deep")
    same = {where: [*_held(schema, where, *_SAME), *_referred(schema, nodes)] for where, schema in nodes.items()}
    same = {where: [each for each in found if each in nodes] for where, found in same.items()}
    _bounded(same)
    _single(same, {where: _groups(schema, where, nodes) for where, schema in nodes.items()})


def _nodes(root: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema in a schema, by its pointer. `true` and `false` need no measuring."""
    todo = [("#", root)]
    seen = 0
    while todo and seen <= MAX_SCHEMAS:
        where, schema = todo.pop()
        if not isinstance(schema, dict):
            continue
        seen += 1
        yield where, schema
        for keywords in (_SAME, *_PARTS, ((), (), (_OVERLAPPING, *_KEPT))):
            todo += [(inner, _at(schema, where, inner)) for inner in _held(schema, where, *keywords)]


def _held(
    schema: Mapping[str, Any], where: str, one: tuple[str, ...], many: tuple[str, ...], named: tuple[str, ...]
) -> list[str]:
    """The pointers of schemas that stand behind these keywords."""
    found = [f"{where}/{name}" for name in one if isinstance(schema.get(name), dict)]
    for name in many:
        if isinstance(schema.get(name), list):
            found += [f"{where}/{name}/{index}" for index in range(len(schema[name]))]
    for name in named:
        if isinstance(schema.get(name), dict):
            found += [f"{where}/{name}/{_escaped(key)}" for key in schema[name]]
    return found


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _at(schema: Mapping[str, Any], where: str, inner: str) -> Any:
    found: Any = schema
    for step in inner[len(where) + 1 :].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def _referred(schema: Mapping[str, Any], nodes: Nodes) -> Iterator[str]:
    for name in _REFERENCES:
        reference = schema.get(name)
        if reference is None:
            continue
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise ValueError(f"refers to {str(reference)[:80]!r}; only #/… within the schema itself is followed")
        if reference not in nodes:
            raise ValueError(f"refers to {reference[:80]!r}, where there is no schema")
        yield reference


def _groups(schema: Mapping[str, Any], where: str, nodes: Nodes) -> list[list[str]]:
    patterns = [[each] for each in _held(schema, where, (), (), (_OVERLAPPING,))]
    groups = [*(_held(schema, where, *keywords) for keywords in _PARTS), *patterns]
    return [kept for group in groups if (kept := [each for each in group if each in nodes])]


def _bounded(same: Mapping[str, list[str]]) -> None:
    """No value is held against too many schemas, and no circle is without end."""
    work: dict[str, int] = {}
    for root in same:
        path: list[tuple[str, Iterator[str]]] = [(root, iter(same[root]))] if root not in work else []
        on_path = {root}
        while path:
            where, rest = path[-1]
            inner = next((each for each in rest if each not in work), None)
            if inner is not None:
                if inner in on_path:
                    raise ValueError("has a reference that leads back to itself without going into the value")
                path.append((inner, iter(same[inner])))
                on_path.add(inner)
                continue
            path.pop()
            on_path.discard(where)
            work[where] = 1 + sum(work[each] for each in same[where])
            if work[where] > MAX_WORK:
                raise ValueError(f"holds one value against more than {MAX_WORK} schemas")


def _single(same: Mapping[str, list[str]], groups: Mapping[str, list[list[str]]]) -> None:
    """Whoever comes round to where it began does so by one way for each value."""
    every = {where: [*same[where], *(each for group in groups[where] for each in group)] for where in same}
    leads, applied = _reachable(every), _reachable(same)
    bits = {where: 1 << index for index, where in enumerate(same)}
    for goal, bit in bits.items():
        ways = 0
        for where in same:
            if applied[goal] & bits[where]:
                ways += sum(1 for group in groups[where] if any(leads[each] & bit for each in group))
        if ways > 1:
            raise ValueError("describes a tree in which each level doubles the work; describe its nodes once")


def _reachable(edges: Mapping[str, list[str]]) -> dict[str, int]:
    """For each schema the set of those it leads to, itself too, as bits."""
    reach = {where: 1 << index for index, where in enumerate(edges)}
    changed = True
    while changed:
        changed = False
        for where, found in edges.items():
            wider = reach[where]
            for each in found:
                wider |= reach[each]
            if wider != reach[where]:
                reach[where], changed = wider, True
    return reach
