-- Who is behind a pseudonym of the audit log, and the key that binds the two (stores/subjects.py). Erasing a row is what
-- makes somebody unknown.
CREATE TABLE audit_subject (
    pseudonym TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    salt BLOB NOT NULL
) WITHOUT ROWID;
