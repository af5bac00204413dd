"""The query of an admin route: what is no parameter there, or is there twice, is refused and not passed over."""

from __future__ import annotations

import re
from pathlib import Path

from tests.serving import Gateway, running

# What each of these may be asked by; all other admin routes take nothing.
FILTERS = (
    *("before", "limit", "since", "until"),
    *("actor", "client", "action", "object", "outcome", "effect", "rule", "task", "request", "correlation"),
)
PARAMETERS = {
    "/admin/approvals": ("all", "before", "limit"),
    "/admin/audit": FILTERS,
    "/admin/audit:watch": FILTERS,
    "/admin/connections": ("of", "at"),
    "/admin/grants": ("client", "person"),
    "/admin/push": ("limit",),
    "/admin/push/dead": ("after", "limit"),
    "/admin/tasks": (
        *("agent", "contextId", "status", "pageSize", "pageToken"),
        *("historyLength", "statusTimestampAfter", "includeArtifacts"),
    ),
    "/admin/tasks/{id}:replay": ("event", "at"),
}


def routes(gateway: Gateway) -> list[tuple[str, str]]:
    """Method and path of every route of the admin API."""
    found = gateway.app.asgi._inside._rest.routes  # type: ignore[attr-defined]
    return [
        (method, route.path)
        for route in found
        if route.path.startswith("/admin/")
        for method in sorted(route.methods - {"HEAD"})
    ]


async def asked(gateway: Gateway, method: str, path: str, query: str, who: str | None = None) -> tuple[int, str]:
    path = re.sub(r"\{\w+(:\w+)?\}", "1", path)
    answer = await gateway.client.request(method, f"{path}?{query}", headers=gateway.bearer(who))
    return answer.status_code, answer.text


async def test_no_admin_route_passes_over_a_parameter_that_it_does_not_know(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        every = routes(gateway)
        assert set(PARAMETERS) <= {path for method, path in every if method == "GET"}
        assert len(every) > 50
        for method, path in every:
            names = PARAMETERS.get(path, ()) if method == "GET" else ()
            status, text = await asked(gateway, method, path, "lmit=3")
            told = f"lmit: is no parameter here; there are {', '.join(names) or 'none'}"
            assert (status, told in text) == (400, True), (method, path, text)
            for name in names:
                status, text = await asked(gateway, method, path, f"{name}=1&{name}=2")
                assert (status, f"{name}: is in the query twice" in text) == (400, True), (path, text)
        assert (await asked(gateway, "GET", "/admin/approvals", "all=yes"))[0] == 400
        assert (await asked(gateway, "GET", "/admin/approvals", "all=false"))[0] == 200


async def test_who_is_nobody_hears_that_first(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        answer = await gateway.client.get("/admin/tasks", params={"lmit": 3})
        assert answer.status_code == 401


async def test_a_parameter_that_is_misspelled_does_not_act(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        await gateway.key("ann")
        headers = gateway.bearer(None)
        (key,) = (await gateway.client.get("/admin/keys", headers=headers)).json()["keys"]
        assert (await asked(gateway, "DELETE", f"/admin/keys/{key['id']}", "dry_run=true"))[0] == 400
        assert (await gateway.client.get("/admin/keys", headers=headers)).json()["keys"] == [key]
