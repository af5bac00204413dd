"""MCP, all revisions since 2025-03-26, on plain JSON trees: what a message is, which revision it belongs to, what its
headers must say, and how a result of one era is shown to the other. Pure: no waiting, no network.

Sections named in this package are those of the specification of 2026-07-28 unless another revision is named.
"""
