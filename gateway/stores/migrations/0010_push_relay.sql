-- Push relay: whom an event waits for, since when and why; and what was given up.

-- The host (with its port) that a webhook is at. Rows of before count as one nameless host.
ALTER TABLE push_config ADD COLUMN host TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN host TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN queued INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN problem TEXT;
UPDATE outbox SET queued = CAST(strftime('%s', 'now') AS INTEGER) * 1000;

-- In the order in which deliveries are taken, and with the host, so that those of a host that rests are passed over
-- without a look at their rows.
DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (due, tenant, task_id, config_id, host) WHERE due IS NOT NULL;

-- The numbers are never used twice: one that was shown names the same delivery for ever.
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    task_id TEXT NOT NULL,
    config_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    host TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    problem TEXT NOT NULL,
    queued INTEGER NOT NULL,
    died INTEGER NOT NULL
);

CREATE INDEX dead_letter_by_config ON dead_letter (tenant, task_id, config_id);
