"""`python -m gateway.config [page|schema]` prints the reference page or the JSON Schema."""

from __future__ import annotations

import sys

from gateway.config.reference import markdown, schema_text

_PRINTS = {"page": markdown, "schema": schema_text}


def main(arguments: list[str]) -> int:
    wanted = _PRINTS.get(" ".join(arguments) or "page")
    if wanted is None:
        sys.stderr.write(f"python -m gateway.config [{'|'.join(_PRINTS)}]\n")
        return 2
    sys.stdout.write(wanted())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
