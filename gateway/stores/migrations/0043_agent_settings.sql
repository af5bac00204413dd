-- What the operator says about a registered agent beside its address: further servers, and who signs its card (JSON).
ALTER TABLE agent ADD COLUMN settings BLOB NOT NULL DEFAULT '{}';
