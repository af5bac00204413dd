-- Tasks that wait for somebody (6 INPUT_REQUIRED, 8 AUTH_REQUIRED), so that freezing an agent or a principal finds them.
-- Rows are in it only while they wait.
CREATE INDEX task_waiting ON task (agent, owner) WHERE state IN (6, 8);
