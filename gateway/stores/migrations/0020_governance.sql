-- What governs calls and must survive a restart. All of it is small: it is read at the start and kept in memory.

-- Agents and principals that may do nothing.
CREATE TABLE frozen (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    by TEXT NOT NULL,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;

-- How much of each limit is used in the window that runs.
CREATE TABLE limit_usage (
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    until INTEGER NOT NULL,
    used REAL NOT NULL,
    PRIMARY KEY (name, key)
) WITHOUT ROWID;

CREATE INDEX limit_usage_until ON limit_usage (until);

-- The labels that conversations have gathered. The key begins with the tenant and the owner.
CREATE TABLE conversation_label (
    conversation TEXT NOT NULL PRIMARY KEY,
    labels TEXT NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX conversation_label_at ON conversation_label (at);
