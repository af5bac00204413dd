-- Who may append to the audit log (stores/sequence.py): whoever knows this epoch. Each start raises it.
CREATE TABLE audit_head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL
);
INSERT INTO audit_head (id, epoch) VALUES (1, 0);
