-- The audit log as a Merkle tree (docs/adr/0050-merkle-log.md). Leaf n is the entry with number n + 1 of `audit`.
-- Tiles as c2sp.org/tlog-tiles has them: the one of a level L holds up to 256 roots of subtrees of 256^L leaves, 32 bytes
-- each. They vouch for nothing, they only save hashing; what vouches is the signature under a checkpoint.
CREATE TABLE audit_tile (
    level INTEGER NOT NULL,
    n INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (level, n)
);

-- Signed heads of the tree, as notes (c2sp.org/tlog-checkpoint).
CREATE TABLE audit_checkpoint (
    size INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    note BLOB NOT NULL
);
