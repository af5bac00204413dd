-- Who may read a task beside its owner, and up to when (NULL: until it is taken back). One look by the key says so,
-- whether there is such a task or not: what is missing takes as long as what is somebody else's.
CREATE TABLE share (
    tenant TEXT NOT NULL,
    task_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    owner TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    created INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (tenant, task_id, principal)
) WITHOUT ROWID;

-- It goes with its task, whoever takes that out.
CREATE TRIGGER share_of_no_task AFTER DELETE ON task
BEGIN
    DELETE FROM share WHERE tenant = OLD.tenant AND task_id = OLD.id;
END;
