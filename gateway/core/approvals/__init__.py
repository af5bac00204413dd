"""Calls that a rule has stopped until somebody agrees.

`approvals` keeps them and knows who waits for what; `messages` has the tasks of messages that no agent has seen yet;
`calls` lets an agent wait in the middle of its work; `desk` is where people answer, `answers` where a caller may who is
asked itself. Doors use `Approvals.ask`, `wait` and `spend`.
"""
