-- Every statement of the SQLite store after the schema: its name, its purpose, its text.
-- Values come by position, because binding by name costs more; by name where there are many or one comes twice.

-- name: reserve
-- Take a key that is free.
INSERT INTO reservation (n, hash, tenant, principal, message_id, agent, digest, task_id, at, settled, reply)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: reservation
-- One row.
SELECT tenant, principal, message_id, agent, digest, task_id, at, settled, reply FROM reservation WHERE n = ?;

-- name: reservations_by_hash
-- The merged rows of one hash.
SELECT n FROM reservation_by_hash WHERE hash = ?;

-- name: unsettled
-- Keys whose work has begun and left nothing.
SELECT tenant, principal, message_id, agent, digest, task_id, at, settled, reply FROM reservation
WHERE settled = 0 AND reply IS NULL AND at < ? ORDER BY at;

-- name: release
-- Give a key back, unless something came of it.
DELETE FROM reservation
WHERE n = ? AND tenant = ? AND principal = ? AND message_id = ? AND agent = ? AND settled = 0 AND reply IS NULL;

-- name: save_reply
-- Keep the agent's message under its key.
UPDATE reservation SET reply = ? WHERE n = ? AND tenant = ? AND principal = ? AND message_id = ? AND agent = ?;

-- name: settle
-- The key has a task.
UPDATE reservation SET settled = 1 WHERE n = ? AND tenant = ? AND principal = ? AND message_id = ? AND agent = ?;

-- name: merge
-- Enter a row into the index. One that is there already was entered by a merge that a restart cut short.
INSERT OR IGNORE INTO reservation_by_hash (hash, n) VALUES (?, ?);

-- name: unmerge
-- Take a released row out of the index, if it is in there.
DELETE FROM reservation_by_hash WHERE hash = ? AND n = ?;

-- name: merged
-- All rows up to this one are in the index.
SELECT n FROM reservation_merged WHERE id = 1;

-- name: end_merge
-- The index has caught up so far.
UPDATE reservation_merged SET n = ? WHERE id = 1;

-- name: unmerged
-- What the index may not know.
SELECT hash, n FROM reservation WHERE n > ?;

-- name: last_reservation
-- The greatest number in use.
SELECT max(n) FROM reservation;

-- name: create_task
-- A new task with its snapshot.
INSERT INTO task (tenant, id, owner, agent, context_id, state, created, updated, deadline, message_id,
                  seq, fence, node, upstream, doc_seq, doc, root, trail, caller)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: advance_task
-- Move a task on, if it is still ours and stands where we think; its snapshot stays behind.
UPDATE task SET state = ?, updated = ?, deadline = ?, seq = ?, node = ?, upstream = ?, root = ?, trail = ?, caller = ?
WHERE tenant = ? AND id = ? AND fence = ? AND seq = ?;

-- name: advance_task_with_snapshot
-- The same, and the snapshot catches up.
UPDATE task SET state = ?, updated = ?, deadline = ?, seq = ?, node = ?, upstream = ?, root = ?, trail = ?, caller = ?,
                doc_seq = ?, doc = ?
WHERE tenant = ? AND id = ? AND fence = ? AND seq = ?;

-- name: grow_task
-- The same for a task whose status, time and node are what they were: columns of no index, and no end.
UPDATE task SET deadline = ?, seq = ?, upstream = ?
WHERE tenant = ? AND id = ? AND fence = ? AND seq = ? AND state = ? AND updated = ? AND node = ?
AND state NOT IN (3, 4, 5, 7);

-- name: grow_task_with_snapshot
-- And the snapshot catches up.
UPDATE task SET deadline = ?, seq = ?, upstream = ?, doc_seq = ?, doc = ?
WHERE tenant = ? AND id = ? AND fence = ? AND seq = ? AND state = ? AND updated = ? AND node = ?
AND state NOT IN (3, 4, 5, 7);

-- name: standing
-- Why a task did not move on.
SELECT fence, seq FROM task WHERE tenant = ? AND id = ?;

-- name: append_events
-- One group of events.
INSERT INTO event (tenant, task_id, first_seq, last_seq, bodies, at) VALUES (?, ?, ?, ?, ?, ?);

-- name: events_after
-- A task's log from some number on.
SELECT first_seq, bodies, at FROM event WHERE tenant = ? AND task_id = ? AND last_seq > ? ORDER BY last_seq;

-- name: event_group
-- The group that holds one event.
SELECT first_seq, bodies FROM event WHERE tenant = ? AND task_id = ? AND last_seq >= ? ORDER BY last_seq LIMIT 1;

-- name: task
-- One task. Another owner's is not even read: it must take no longer than one that is missing.
SELECT tenant, id, owner, agent, seq, fence, created, updated, deadline, message_id, upstream, doc_seq, doc, root, trail, caller
FROM task WHERE tenant = ? AND id = ? AND owner = ifnull(?, owner) AND agent = ifnull(?, agent);

-- name: tasks
-- One page, newest status first. {index} and {filters} come from the table in rows.py.
SELECT tenant, id, owner, agent, seq, fence, created, updated, deadline, message_id, upstream, doc_seq, doc, root, trail, caller
FROM task INDEXED BY {index} WHERE tenant = :tenant AND owner = :owner {filters}
ORDER BY updated DESC, id DESC LIMIT :limit;

-- name: waiting_tasks
-- Tasks that wait for somebody, and would go on for an agent that works on them or has asked for them; or for a
-- principal that owns them or acts for who does.
SELECT tenant, id, owner, agent, seq, fence, created, updated, deadline, message_id, upstream, doc_seq, doc, root, trail, caller
FROM task INDEXED BY task_waiting WHERE state IN (6, 8) AND (tenant, id) > (:tenant, :id)
AND (:principal IS NULL OR owner = :principal OR (caller IS NOT NULL AND instr(caller, :actor) > 0))
AND (:agent IS NULL OR agent = :agent OR (root IS NOT NULL AND instr(trail, :asker) > 0))
ORDER BY tenant, id LIMIT :limit;

-- name: tasks_in_tree
-- What an outermost task has led to and is not at its end.
SELECT tenant, id, owner, agent, seq, fence, created, updated, deadline, message_id, upstream, doc_seq, doc, root, trail, caller
FROM task INDEXED BY task_in_tree WHERE root IS NOT NULL AND state IN (1, 2, 6, 8) AND tenant = ? AND root = ? AND id > ?
ORDER BY id LIMIT ?;

-- name: count_tasks
-- How many match in all.
SELECT count(*) FROM task INDEXED BY {index} WHERE tenant = :tenant AND owner = :owner {filters};

-- name: claimable
-- Tasks that nobody in this life of the process executes. Two ranges instead of `node <> ?`, which would walk
-- over everything that was claimed already.
SELECT tenant, id FROM (
    SELECT tenant, id FROM task INDEXED BY task_active WHERE state IN (1, 2) AND node < :node
    UNION ALL
    SELECT tenant, id FROM task INDEXED BY task_active WHERE state IN (1, 2) AND node > :node
) LIMIT :limit;

-- name: claim
-- Take a task over: whoever had it before writes no more.
UPDATE task SET fence = fence + 1, node = ? WHERE tenant = ? AND id = ?;

-- name: put_push_config
-- A configuration, new or changed; what is queued for it stays queued.
INSERT INTO push_config (tenant, task_id, id, host, doc) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET host = excluded.host, doc = excluded.doc;

-- name: move_deliveries
-- What is queued for it goes to where it points now.
UPDATE outbox SET host = ? WHERE tenant = ? AND task_id = ? AND config_id = ?;

-- name: push_config
-- One configuration.
SELECT doc FROM push_config WHERE tenant = ? AND task_id = ? AND id = ?;

-- name: push_configs
-- A task's configurations, page by page.
SELECT doc FROM push_config WHERE tenant = ? AND task_id = ? AND id > ? ORDER BY id LIMIT ?;

-- name: drop_push_config
-- Delete a configuration.
DELETE FROM push_config WHERE tenant = ? AND task_id = ? AND id = ?;

-- name: drop_deliveries
-- What is still queued for a configuration.
DELETE FROM outbox WHERE tenant = ? AND task_id = ? AND config_id = ?;

-- name: drop_dead_of_config
-- And what was given up.
DELETE FROM dead_letter WHERE tenant = ? AND task_id = ? AND config_id = ?;

-- name: queue_delivery
-- One event for each configuration of its task. A webhook hears of one task in order, so only the first event
-- of a queue has a time; the others wait behind it with none.
INSERT INTO outbox (tenant, task_id, config_id, seq, attempts, host, queued, due)
SELECT tenant, task_id, id, :seq, 0, host, :now, CASE WHEN EXISTS (
    SELECT 1 FROM outbox AS before
    WHERE before.tenant = push_config.tenant AND before.task_id = push_config.task_id
      AND before.config_id = push_config.id
) THEN NULL ELSE :now END
FROM push_config WHERE tenant = :tenant AND task_id = :task_id;

-- name: next_delivery
-- The first of a queue is gone: it is the next one's turn.
UPDATE outbox SET due = :now WHERE due IS NULL AND (tenant, task_id, config_id) = (:tenant, :task_id, :config_id)
AND seq = (
    SELECT min(before.seq) FROM outbox AS before
    WHERE before.tenant = :tenant AND before.task_id = :task_id AND before.config_id = :config_id
);

-- name: due
-- What to deliver now, oldest first. {but} leaves out hosts that take no more, and owners who are told nothing.
SELECT tenant, task_id, config_id, seq, attempts + 1, queued,
    (SELECT owner FROM task WHERE task.tenant = outbox.tenant AND task.id = outbox.task_id) AS owner, host
FROM outbox WHERE due <= ? {but} ORDER BY due, tenant, task_id, config_id LIMIT ?;

-- name: lease_delivery
-- Hide it while it is being delivered.
UPDATE outbox SET due = ? WHERE tenant = ? AND task_id = ? AND config_id = ? AND seq = ?;

-- name: retry_delivery
-- An attempt failed; the next one comes then. (Counted here: one that a kill cut short is not the webhook's fault.)
UPDATE outbox SET due = ?, problem = ?, attempts = attempts + 1
WHERE tenant = ? AND task_id = ? AND config_id = ? AND seq = ?;

-- name: free_deliveries
-- What an earlier life of the process had in hand is due again.
UPDATE outbox SET due = :now WHERE due > :now;

-- name: drop_delivery
-- Delivered, or given up.
DELETE FROM outbox WHERE tenant = ? AND task_id = ? AND config_id = ? AND seq = ?;

-- name: bury_delivery
-- Given up: what is known about it is kept.
INSERT INTO dead_letter (tenant, task_id, config_id, seq, host, attempts, problem, queued, died)
SELECT tenant, task_id, config_id, seq, host, attempts + 1, ?, queued, ? FROM outbox
WHERE tenant = ? AND task_id = ? AND config_id = ? AND seq = ?;

-- name: replay_delivery
-- Queued again as if it had just happened; behind one that is in hand, before those that wait.
INSERT OR IGNORE INTO outbox (tenant, task_id, config_id, seq, attempts, host, queued, due)
SELECT tenant, task_id, config_id, seq, 0, host, :now, CASE WHEN EXISTS (
    SELECT 1 FROM outbox AS before
    WHERE before.tenant = dead_letter.tenant AND before.task_id = dead_letter.task_id
      AND before.config_id = dead_letter.config_id
) THEN NULL ELSE :now END
FROM dead_letter WHERE id = :id;

-- name: drop_dead
-- It is queued again.
DELETE FROM dead_letter WHERE id = ?;

-- name: dead
-- What was given up, in the order in which it was.
SELECT id, tenant, task_id, config_id, seq, host, attempts, problem, queued, died FROM dead_letter
WHERE id > :after AND (:id IS NULL OR id = :id) AND (:tenant IS NULL OR tenant = :tenant)
AND (:owner IS NULL OR EXISTS (
    SELECT 1 FROM task WHERE task.tenant = dead_letter.tenant AND task.id = dead_letter.task_id AND task.owner = :owner
)) ORDER BY id LIMIT :limit;

-- name: queues
-- The first of each queue that waits for a webhook, and how long the queue is.
SELECT tenant, task_id, config_id, host, (
    SELECT count(*) FROM outbox AS queue
    WHERE queue.tenant = outbox.tenant AND queue.task_id = outbox.task_id AND queue.config_id = outbox.config_id
), attempts, queued, due, problem FROM outbox
WHERE due IS NOT NULL AND (:tenant IS NULL OR tenant = :tenant)
AND (:owner IS NULL OR EXISTS (
    SELECT 1 FROM task WHERE task.tenant = outbox.tenant AND task.id = outbox.task_id AND task.owner = :owner
)) ORDER BY due, tenant, task_id, config_id LIMIT :limit;

-- name: put_upstream_context
-- The remote agent's id for one of our contexts; the newest counts.
INSERT INTO upstream_context (tenant, owner, agent, context_id, upstream_context_id, url) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET upstream_context_id = excluded.upstream_context_id, url = excluded.url;

-- name: upstream_context
-- The remote agent's id for one of our contexts.
SELECT url, upstream_context_id FROM upstream_context WHERE tenant = ? AND owner = ? AND agent = ? AND context_id = ?;

-- name: put_agent
-- Register a remote agent, or write down its newest card.
INSERT OR REPLACE INTO agent (id, card_url, trusted, added, card, etag, fetched, settings)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: drop_agent
-- Forget a remote agent.
DELETE FROM agent WHERE id = ?;

-- name: agents
-- The whole registry.
SELECT id, card_url, trusted, added, card, etag, fetched, settings FROM agent ORDER BY id;

-- name: put_key
-- A new API key, or its revocation.
INSERT OR REPLACE INTO api_key (tenant, id, name, prefix, hash, created, revoked) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: keys
-- All API keys, the revoked ones too.
SELECT id, tenant, name, prefix, hash, created, revoked FROM api_key ORDER BY tenant, id;

-- name: append_audit
-- The entries of one transaction, one a line.
INSERT INTO audit (last_idx, first_idx, entries) VALUES (?, ?, ?);

-- name: raise_epoch
-- Take the log over: whoever had it before writes no more.
UPDATE audit_head SET epoch = epoch + 1 WHERE id = 1;

-- name: log_name
-- What the audit log is called.
SELECT log FROM audit_head WHERE id = 1;

-- name: name_log
-- Once: who opens it at the same moment takes the same name.
UPDATE audit_head SET log = coalesce(log, ?) WHERE id = 1;

-- name: epoch
-- Whose turn it is.
SELECT epoch FROM audit_head WHERE id = 1;

-- name: put_open_calls
-- What has begun and not ended, as of a checkpoint.
UPDATE audit_head SET open_size = ?, open = ? WHERE id = 1;

-- name: open_calls
-- The same again.
SELECT open_size, open FROM audit_head WHERE id = 1;

-- name: audit
-- A page of the record, and the rest of the rows that it begins and ends in.
SELECT first_idx, entries FROM audit WHERE last_idx > ? ORDER BY last_idx LIMIT ?;

-- name: audit_backwards
-- The same from its end, and the rest of the row that holds the entry to begin with.
SELECT first_idx, entries FROM audit WHERE last_idx <= coalesce(
    (SELECT last_idx FROM audit WHERE last_idx >= :before - 1 ORDER BY last_idx LIMIT 1), :before
) ORDER BY last_idx DESC;

-- name: subject
-- What stands for somebody in the audit log.
SELECT pseudonym FROM audit_subject WHERE name = ?;

-- name: subject_name
-- Who is behind it.
SELECT name FROM audit_subject WHERE pseudonym = ?;

-- name: subjects_ending
-- Those whose name ends like this.
SELECT pseudonym FROM audit_subject WHERE substr(name, -length(:end)) = :end;

-- name: put_subject
-- Somebody new.
INSERT INTO audit_subject (pseudonym, name, salt) VALUES (?, ?, ?);

-- name: drop_subject
-- Nobody knows who that was.
DELETE FROM audit_subject WHERE pseudonym = ?;

-- name: put_tile
-- Hashes of the tree; a tile grows until it is full.
INSERT OR REPLACE INTO audit_tile (level, n, hashes) VALUES (?, ?, ?);

-- name: tile
-- Hashes of the tree.
SELECT hashes FROM audit_tile WHERE level = ? AND n = ?;

-- name: put_checkpoint
-- A signed head; again, once a witness has cosigned it.
INSERT OR REPLACE INTO audit_checkpoint (size, at, note) VALUES (?, ?, ?);

-- name: last_checkpoint
-- The newest head.
SELECT size, note FROM audit_checkpoint WHERE size >= 0 ORDER BY size DESC LIMIT 1;

-- name: audit_end
-- The greatest index that was ever used.
SELECT seq FROM sqlite_sequence WHERE name = 'audit';

-- name: put_client
-- A new client of the authorization server, or its revocation.
INSERT OR REPLACE INTO oauth_client (id, hash, scopes, created, revoked, about) VALUES (?, ?, ?, ?, ?, ?);

-- name: clients
-- All clients, the revoked ones too.
SELECT id, hash, scopes, created, revoked, about FROM oauth_client ORDER BY id;

-- name: revoke_token
-- A token that ends before its time.
INSERT OR REPLACE INTO oauth_revoked (jti, until) VALUES (?, ?);

-- name: forget_revoked
-- Tokens that have ended by themselves need not be remembered.
DELETE FROM oauth_revoked WHERE until <= ?;

-- name: revoked_tokens
-- The tokens that were taken back.
SELECT jti, until FROM oauth_revoked ORDER BY jti;

-- name: freeze
-- An agent or principal that may do nothing.
INSERT OR REPLACE INTO frozen (kind, name, by, at, reason) VALUES (?, ?, ?, ?, ?);

-- name: thaw
-- It may again.
DELETE FROM frozen WHERE kind = ? AND name = ?;

-- name: frozen
-- All that are frozen.
SELECT kind, name, by, at, reason FROM frozen ORDER BY kind, name;

-- name: halt
-- A tree of tasks of which nothing may go on.
INSERT OR REPLACE INTO halted (tenant, root, rule, reason) VALUES (?, ?, ?, ?);

-- name: forget_halted
-- Nothing is left of it.
DELETE FROM halted WHERE tenant = ? AND root = ?;

-- name: halted
-- All of which something may be left.
SELECT tenant, root, rule, reason FROM halted ORDER BY tenant, root;

-- name: spend
-- The state of one window.
INSERT OR REPLACE INTO limit_usage (name, key, until, used) VALUES (?, ?, ?, ?);

-- name: forget_usage
-- Windows that have ended.
DELETE FROM limit_usage WHERE until <= ?;

-- name: usage
-- All windows.
SELECT name, key, until, used FROM limit_usage ORDER BY name, key;

-- name: label
-- What a conversation has gathered.
INSERT OR REPLACE INTO conversation_label (conversation, labels, at) VALUES (?, ?, ?);

-- name: forget_labels
-- Conversations that have long been still.
DELETE FROM conversation_label WHERE at < ?;

-- name: labels
-- All conversations with labels, the latest last.
SELECT conversation, labels, at FROM conversation_label ORDER BY at, conversation;

-- name: put_user
-- A person with a password, its new one, or its removal.
INSERT OR REPLACE INTO oauth_user (name, hash, roles, created, removed) VALUES (?, ?, ?, ?, ?);

-- name: users
-- All of them, the removed ones too.
SELECT name, hash, roles, created, removed FROM oauth_user ORDER BY name;

-- name: put_grant
INSERT INTO oauth_grant (id, mark, client, subject, person, scopes, audience, began, until)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: forget_grants
-- Those that have ended by themselves.
DELETE FROM oauth_grant WHERE until <= ?;

-- name: grant
SELECT id, mark, client, subject, person, scopes, audience, began, until FROM oauth_grant WHERE id = ?;

-- name: rotate_grant
-- Nobody rotates the same refresh token twice.
UPDATE oauth_grant SET mark = ? WHERE id = ? AND mark = ?;

-- name: end_grant
DELETE FROM oauth_grant WHERE id = ?;

-- name: put_approval
INSERT INTO approval (id, state, revision, created, doc, until, tenant, owner, target)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: move_approval
UPDATE approval SET state = ?, revision = ?, doc = ? WHERE id = ? AND revision = ?

-- name: open_approvals
SELECT doc FROM approval WHERE state IN ('waiting', 'approved') ORDER BY created, id

-- name: approval
SELECT doc FROM approval WHERE id = ?

-- name: approvals_for
-- The newest for one target.
SELECT id FROM approval
WHERE target = :target AND id < :before AND (:tenant IS NULL OR tenant = :tenant) ORDER BY id DESC LIMIT :limit

-- name: approvals_of
-- The newest that somebody has begun.
SELECT id FROM approval
WHERE owner = :owner AND id < :before AND (:tenant IS NULL OR tenant = :tenant) ORDER BY id DESC LIMIT :limit

-- name: next_approval_target
-- What calls were for that waited, one after the other: each is found at once, however many calls there were.
SELECT min(target) FROM approval WHERE target > ?

-- name: forget_approvals
-- Ended ones whose time has long been over, some at once.
DELETE FROM approval WHERE id IN (
    SELECT id FROM approval WHERE state NOT IN ('waiting', 'approved') AND until < ? ORDER BY until LIMIT ?
)

-- name: grants
-- All that is allowed.
SELECT id, mark, client, subject, person, scopes, audience, began, until FROM oauth_grant ORDER BY id;

-- name: grants_by
-- What a person has allowed.
SELECT id, mark, client, subject, person, scopes, audience, began, until FROM oauth_grant
WHERE subject = ? ORDER BY id;

-- name: grants_to
-- What a client was allowed.
SELECT id, mark, client, subject, person, scopes, audience, began, until FROM oauth_grant
WHERE client = ? ORDER BY id;

-- name: put_share
-- Somebody may read a task, or up to another time.
INSERT OR REPLACE INTO share (tenant, task_id, principal, owner, granted_by, created, until)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: drop_share
-- Not any more.
DELETE FROM share WHERE tenant = ? AND task_id = ? AND principal = ?;

-- name: share
-- What lets somebody read a task.
SELECT tenant, task_id, principal, owner, granted_by, created, until FROM share
WHERE tenant = ? AND task_id = ? AND principal = ?;

-- name: shares
-- Who may read a task.
SELECT tenant, task_id, principal, owner, granted_by, created, until FROM share
WHERE tenant = ? AND task_id = ? ORDER BY principal;
