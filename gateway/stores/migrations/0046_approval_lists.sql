-- Who sees which approvals, and which have had their time: looked for by columns, not in `doc`.
ALTER TABLE approval ADD COLUMN until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE approval ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
ALTER TABLE approval ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE approval ADD COLUMN target TEXT NOT NULL DEFAULT '';

UPDATE approval SET
    until = json_extract(CAST(doc AS TEXT), '$.until'),
    tenant = json_extract(CAST(doc AS TEXT), '$.asked.principal.tenant'),
    target = json_extract(CAST(doc AS TEXT), '$.asked.target'),
    owner = (
        -- Whoever stands at the outer end of the chain.
        WITH RECURSIVE line (who) AS (
            SELECT json_extract(CAST(doc AS TEXT), '$.asked.principal')
            UNION ALL
            SELECT json_extract(who, '$.behalf') FROM line WHERE json_extract(who, '$.behalf') IS NOT NULL
        )
        SELECT json_extract(who, '$.kind') || ':' || json_extract(who, '$.name')
        FROM line WHERE json_extract(who, '$.behalf') IS NULL
    );

CREATE INDEX approval_by_target ON approval (target, id, tenant);
CREATE INDEX approval_by_owner ON approval (owner, id, tenant);
CREATE INDEX approval_ended ON approval (until) WHERE state NOT IN ('waiting', 'approved');
