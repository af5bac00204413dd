-- What the log is called: the origin of its checkpoints, and `log_id` of each entry. One that is not signed yet gets its
-- name when it is opened (stores/auditlog.py).
ALTER TABLE audit_head ADD COLUMN log TEXT;
UPDATE audit_head SET log = (
    SELECT CAST(substr(note, 1, instr(note, x'0A') - 1) AS TEXT)
    FROM audit_checkpoint WHERE size >= 0 ORDER BY size DESC LIMIT 1
);
