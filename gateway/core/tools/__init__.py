"""MCP servers behind one door: which there are, what they offer to whom, and every call to them.

As everywhere in core: resolve, decide, record, act. Trees are MCP's own JSON, in the newest revision's form.
"""
