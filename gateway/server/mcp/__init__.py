"""MCP's door: `/mcp` and `/mcp/{mount}`, requests of 2026-07-28 and sessions of the revisions before on one path.

Content is a JSON tree from here to the server behind us and back. What is written is always our own serialisation.
"""
