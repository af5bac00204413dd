-- The built-in authorization server: who may ask it for tokens, and which of its tokens were taken back before they ended.
-- They belong to the installation, not to a tenant.
CREATE TABLE oauth_client (
    id TEXT NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL,
    scopes TEXT NOT NULL,
    created INTEGER NOT NULL,
    revoked INTEGER
) WITHOUT ROWID;

CREATE TABLE oauth_revoked (
    jti TEXT NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID;

-- Those that have ended by themselves are forgotten.
CREATE INDEX oauth_revoked_until ON oauth_revoked (until);
