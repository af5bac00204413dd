"""A mount with search: three tools that find, show and call the others, for exactly what the caller may use."""

from __future__ import annotations

from pathlib import Path

from tests.mcp import Door, configured, scripted, tool
from tests.serving import running


async def test_three_tools_stand_for_all_the_others(tmp_path: Path) -> None:
    many = [tool(f"t{number}", description=f"Counts to {number}.") for number in range(40)]
    invoice = tool("create_invoice", description="Creates an invoice.", later={"x": 2**60})
    async with scripted(invoice, tool("secret", description="Creates a secret invoice."), *many) as docs:
        config = configured("mounts: {m: {search: true}}", "grants: [{to: ann, tools: ['docs/[!s]*']}]", docs=docs)
        async with running(tmp_path, config) as gateway:
            door = Door(gateway, "m", await gateway.key("ann"))
            assert await door.names() == ["search_tools", "describe_tool", "call_tool"]
            found = (await door.call("search_tools", query="make invoices"))["structuredContent"]["tools"]
            assert [each["name"] for each in found] == ["docs__create_invoice"]
            shown = (await door.call("describe_tool", name="docs__create_invoice"))["structuredContent"]["tool"]
            assert (shown["name"], shown["later"]) == ("docs__create_invoice", {"x": 2**60})
            result = await door.call("call_tool", name="docs__create_invoice", arguments={"n": 2**60})
            assert result["content"][0]["text"] == "create_invoice"
            assert docs.asked("tools/call")[-1]["arguments"] == {"n": 2**60}
            for name, arguments in (
                ("describe_tool", {"name": "docs__secret"}),
                ("call_tool", {"name": "docs__secret"}),
                ("call_tool", {"name": "call_tool"}),
                ("search_tools", {"query": ""}),
                ("search_tools", {"query": "x", "limit": 0}),
            ):
                assert (await door.error("tools/call", {"name": name, "arguments": arguments}))["code"] == -32602
            session = await door.session()
            listed = (await session.result("tools/list"))["tools"]
            assert [each["name"] for each in listed] == ["search_tools", "describe_tool", "call_tool"]
            entries = [entry for entry in await gateway.record() if entry.target == "docs/create_invoice"]
            assert [entry.phase for entry in entries] == ["intent", "outcome"]
