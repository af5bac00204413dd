-- Of a task that an agent asked for: the outermost task of its tree, and the way from there (JSON, stores/trails.py).
-- NULL where a caller asked.
ALTER TABLE task ADD COLUMN root TEXT;
ALTER TABLE task ADD COLUMN trail TEXT;

-- What is not at its end yet of one tree, for HALT. Rows without a tree are never in it.
CREATE INDEX task_in_tree ON task (tenant, root, id) WHERE root IS NOT NULL AND state IN (1, 2, 6, 8);

-- What waits for somebody, in the order in which it is read page by page; the rest spares most rows a look at the task.
DROP INDEX task_waiting;
CREATE INDEX task_waiting ON task (tenant, id, agent, owner, root) WHERE state IN (6, 8);

-- Trees that a rule has halted, until nothing is left of them that could go on.
CREATE TABLE halted (
    tenant TEXT NOT NULL,
    root TEXT NOT NULL,
    rule TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (tenant, root)
) WITHOUT ROWID;
