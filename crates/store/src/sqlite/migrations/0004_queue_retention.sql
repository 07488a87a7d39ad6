-- `waits` is 1 while a task waits until its bot and its tenant have room for it. It does not count among their unfinished tasks.
ALTER TABLE tasks ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_admitted ON tasks (tenant, bot) WHERE finished_at IS NULL AND waits = 0;
CREATE INDEX tasks_waiting ON tasks (tenant, bot, bytes) WHERE finished_at IS NULL AND waits = 1;

-- Output that outlives its sandbox. `data` is an LZ4 block where it is shorter than `size`. `tasks.retained` says what is there, and
-- `tasks.unretained` is 1 while the sandbox of a finished task holds more.
CREATE TABLE outputs (
    task  TEXT    NOT NULL PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    total INTEGER NOT NULL,
    runs  TEXT    NOT NULL,
    size  INTEGER NOT NULL,
    data  BLOB    NOT NULL
) STRICT;
ALTER TABLE tasks ADD COLUMN retained TEXT;
ALTER TABLE tasks ADD COLUMN unretained INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_unretained ON tasks (sandbox, id) WHERE unretained = 1;

-- A task goes with its notifications, at a time that the notification of its end decides. `unannounced` is 1 where there is none.
ALTER TABLE tasks ADD COLUMN unannounced INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_unannounced ON tasks (finished_at) WHERE unannounced = 1;
DROP INDEX notifications_acknowledged;
DROP INDEX notifications_made;
CREATE INDEX notifications_settled ON notifications (acknowledged_at) WHERE kind = 'completed' AND acknowledged_at IS NOT NULL;
CREATE INDEX notifications_unsettled ON notifications (created_at) WHERE kind = 'completed' AND acknowledged_at IS NULL;

UPDATE tasks SET unretained = 1, unannounced =
    NOT EXISTS (SELECT 1 FROM notifications WHERE notifications.task = tasks.id AND kind = 'completed')
WHERE finished_at IS NOT NULL;

-- Notifications used to outlive their tasks. Of those, only completions are found from now on; the others are of no use without.
CREATE TEMPORARY TABLE orphans AS
SELECT sequence, tenant, bytes FROM notifications
WHERE task NOT IN (SELECT id FROM tasks) AND task NOT IN (SELECT task FROM notifications WHERE kind = 'completed');
UPDATE usage SET bytes = bytes - (SELECT sum(bytes) FROM orphans WHERE orphans.tenant = usage.tenant)
WHERE tenant IN (SELECT tenant FROM orphans);
DELETE FROM notifications WHERE sequence IN (SELECT sequence FROM orphans);
DROP TABLE orphans;
