-- The first format. Times are milliseconds since the epoch, and every key that belongs to a caller starts with
-- the tenant. States are the numbers that a2a.proto gives to TaskState: one byte in six indexes instead of
-- twenty, and they mean the same everywhere:
--   1 SUBMITTED  2 WORKING  3 COMPLETED  4 FAILED  5 CANCELED  6 INPUT_REQUIRED  7 REJECTED  8 AUTH_REQUIRED

-- One message, one task or one reply. Rows are written in the order of n. hash is of tenant, principal and
-- message_id (stores/reservations.py); it is no key: what has an equal hash is compared word by word.
CREATE TABLE reservation (
    n INTEGER PRIMARY KEY,
    hash INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    message_id TEXT NOT NULL,
    agent TEXT NOT NULL,
    digest BLOB NOT NULL,
    task_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    reply BLOB
);

-- How a row is found, unless it is so new that the process that writes knows it by heart: rows are entered here
-- many at a time, and all of them up to reservation_merged.n are. An entry may outlive its row.
CREATE TABLE reservation_by_hash (
    hash INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (hash, n)
) WITHOUT ROWID;

CREATE TABLE reservation_merged (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n INTEGER NOT NULL
);
INSERT INTO reservation_merged (id, n) VALUES (1, 0);

-- What a dead process had begun. Rows are in it only while the work is open.
CREATE INDEX reservation_open ON reservation (at) WHERE settled = 0 AND reply IS NULL;

-- A projection of the log: the columns that questions are asked about, and a snapshot of the task as it was
-- after event doc_seq. What came later is folded in by readers, so a long stream does not rewrite its whole
-- document with each event. While there is none (doc_seq is 0), the log begins with the whole task. doc is last:
-- reading the other columns never touches its overflow pages.
CREATE TABLE task (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    agent TEXT NOT NULL,
    context_id TEXT NOT NULL,
    state INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    node TEXT NOT NULL,
    upstream BLOB,
    doc_seq INTEGER NOT NULL,
    doc BLOB,
    PRIMARY KEY (tenant, id)
);

-- ListTasks: one index per filter, each in the order of the answer. The columns behind it let the remaining
-- filters and the count be answered from the index alone.
CREATE INDEX task_by_owner ON task (tenant, owner, updated, id);
CREATE INDEX task_by_agent ON task (tenant, owner, agent, updated, id);
CREATE INDEX task_by_state ON task (tenant, owner, state, updated, id, agent);
CREATE INDEX task_by_context ON task (tenant, owner, context_id, updated, id, agent, state);

-- Who executes what. Rows are in it only while somebody should be working.
CREATE INDEX task_active ON task (node) WHERE state IN (1, 2);

-- The second lock on "terminal stays terminal"; the first is model/task.py.
CREATE TRIGGER task_has_ended BEFORE UPDATE OF state ON task
WHEN OLD.state IN (3, 4, 5, 7)
BEGIN
    SELECT RAISE(ABORT, 'the task has ended');
END;

-- The log, append-only: one row per group of events that came together. bodies is a JSON array of their
-- StreamResponses, one per line.
CREATE TABLE event (
    tenant TEXT NOT NULL,
    task_id TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    bodies BLOB NOT NULL,
    PRIMARY KEY (tenant, task_id, last_seq)
);

CREATE TABLE push_config (
    tenant TEXT NOT NULL,
    task_id TEXT NOT NULL,
    id TEXT NOT NULL,
    doc BLOB NOT NULL,
    PRIMARY KEY (tenant, task_id, id)
) WITHOUT ROWID;

-- Events that a webhook has not taken yet; the body stays in the log. due is NULL while an earlier event of the
-- task waits for the same webhook.
CREATE TABLE outbox (
    tenant TEXT NOT NULL,
    task_id TEXT NOT NULL,
    config_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    due INTEGER,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (tenant, task_id, config_id, seq)
) WITHOUT ROWID;

CREATE INDEX outbox_due ON outbox (due) WHERE due IS NOT NULL;

CREATE TABLE upstream_context (
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    agent TEXT NOT NULL,
    context_id TEXT NOT NULL,
    upstream_context_id TEXT NOT NULL,
    PRIMARY KEY (tenant, owner, agent, context_id)
) WITHOUT ROWID;

-- The registry belongs to the installation, not to a tenant.
CREATE TABLE agent (
    id TEXT NOT NULL PRIMARY KEY,
    card_url TEXT NOT NULL,
    trusted INTEGER NOT NULL,
    added INTEGER NOT NULL,
    card BLOB,
    etag TEXT,
    fetched INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE api_key (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash BLOB NOT NULL,
    created INTEGER NOT NULL,
    revoked INTEGER,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

-- In the order of the commits: one row per transaction, with the canonical JSON of one entry on each line, from
-- first_idx to last_idx. AUTOINCREMENT: an index is never used twice, even if the newest row were deleted.
CREATE TABLE audit (
    last_idx INTEGER PRIMARY KEY AUTOINCREMENT,
    first_idx INTEGER NOT NULL,
    entries BLOB NOT NULL
);
