-- When a group of events was written, milliseconds since the epoch; 0 for those from before. `gateway replay` asks.
ALTER TABLE event ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
