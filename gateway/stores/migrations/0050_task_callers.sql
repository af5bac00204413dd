-- Who was at the door with a task's newest message, or with what led to it (JSON, stores/principals.py): its roles and
-- scopes then, and for whom it acted. NULL where the owner says all about it, and for what was asked before.
ALTER TABLE task ADD COLUMN caller TEXT;
