-- Calls that wait for a person, and what came of them. `doc` is the approval whole; the columns are what is looked for.
CREATE TABLE approval (
    id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created INTEGER NOT NULL,
    doc BLOB NOT NULL
) WITHOUT ROWID;

CREATE INDEX approval_open ON approval (created) WHERE state IN ('waiting', 'approved');
