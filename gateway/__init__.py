"""An A2A and MCP interoperability gateway."""

__version__ = "0.1.0"
