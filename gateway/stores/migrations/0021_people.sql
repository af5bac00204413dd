-- People at the built-in authorization server, what they have allowed, and what its clients may ask them for.
-- `about` of a client is JSON: grants, redirects, name, origin.
ALTER TABLE oauth_client ADD COLUMN about TEXT NOT NULL DEFAULT '{}';

CREATE TABLE oauth_user (
    name TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    roles TEXT NOT NULL,
    created INTEGER NOT NULL,
    removed INTEGER
) WITHOUT ROWID;

-- `mark` is the SHA-256 of the one refresh token that is good now. `person` is JSON: roles and name.
CREATE TABLE oauth_grant (
    id TEXT NOT NULL PRIMARY KEY,
    mark BLOB NOT NULL,
    client TEXT NOT NULL,
    subject TEXT NOT NULL,
    person TEXT NOT NULL,
    scopes TEXT NOT NULL,
    audience TEXT NOT NULL,
    began INTEGER NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX oauth_grant_subject ON oauth_grant (subject);
CREATE INDEX oauth_grant_client ON oauth_grant (client);
CREATE INDEX oauth_grant_until ON oauth_grant (until);
