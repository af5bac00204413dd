-- Which entries had begun and not ended under the newest checkpoint (stores/opencalls.py): `open_size` is how many
-- entries it is over, `open` their numbers as JSON. NULL before the first checkpoint of this release.
ALTER TABLE audit_head ADD COLUMN open_size INTEGER;
ALTER TABLE audit_head ADD COLUMN open TEXT;
