"""ACP 0.2 (Agent Communication Protocol, i-am-bee/acp; acp-sdk 1.0.3 is its last word): pure translation, both ways.

What one side says and the other has no place for travels along: A2A's under `a2a`, a further member of ACP's objects,
and ACP's under `acp` in A2A's `metadata`. Either comes out again on the way back.
"""
