-- What the operator has approved of MCP servers: the whole definition, so that a change can be shown against it.
CREATE TABLE tool_pin (
    server TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    hash TEXT NOT NULL,
    tree BLOB NOT NULL,
    approved INTEGER NOT NULL,
    PRIMARY KEY (server, kind, key)
) WITHOUT ROWID;
