-- The card of each remote agent that was taken last, as it came, and what its signatures were worth. A later card may
-- not fall behind: signed, then unsigned, is refused.
CREATE TABLE card (
    agent TEXT NOT NULL,
    card_url TEXT NOT NULL,
    source TEXT NOT NULL,
    fetched INTEGER NOT NULL,
    body BLOB NOT NULL,
    verdict TEXT NOT NULL,
    findings BLOB NOT NULL,
    changed INTEGER NOT NULL,
    changes BLOB NOT NULL,
    PRIMARY KEY (agent, card_url)
) WITHOUT ROWID;

-- Of an agent with several endpoints only one knows the context.
ALTER TABLE upstream_context ADD COLUMN url TEXT NOT NULL DEFAULT '';
