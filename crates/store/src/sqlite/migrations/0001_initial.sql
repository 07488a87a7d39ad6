-- Times are microseconds since 1970. `record` is the whole of a row as JSON; the other columns are what is searched or guarded.

CREATE TABLE tasks (
    id          TEXT    NOT NULL PRIMARY KEY, -- a UUID of version 7: its order is the order of creation
    tenant      TEXT    NOT NULL,
    bot         TEXT    NOT NULL,
    session     TEXT    NOT NULL,
    request_id  TEXT,
    sandbox     TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER,
    revision    INTEGER NOT NULL,
    record      TEXT    NOT NULL,
    CHECK ((finished_at IS NULL) = (status IN ('queued', 'starting', 'running', 'stopping')))
) STRICT;

CREATE UNIQUE INDEX tasks_request ON tasks (tenant, bot, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX tasks_of_tenant ON tasks (tenant, id);
CREATE INDEX tasks_of_bot ON tasks (tenant, bot, id);
CREATE INDEX tasks_unfinished ON tasks (tenant, bot, id) WHERE finished_at IS NULL;
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;

-- The second line of defence, behind the guards in the server's own statements.
CREATE TRIGGER tasks_terminal_is_final
BEFORE UPDATE OF status ON tasks
WHEN OLD.status NOT IN ('queued', 'starting', 'running', 'stopping') AND NEW.status IS NOT OLD.status
BEGIN
    SELECT RAISE(ABORT, 'a terminal status is final');
END;

CREATE TABLE sandboxes (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    bot        TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    record     TEXT    NOT NULL,
    UNIQUE (tenant, bot)
) STRICT;

-- A container is the sandbox of one bot, whoever adopts it.
CREATE UNIQUE INDEX sandboxes_runtime ON sandboxes (json_extract(record, '$.runtime'), json_extract(record, '$.runtime_id'));

-- No foreign key to tasks: a notification outlives its task. AUTOINCREMENT: a sequence is never used twice, even after removals.
CREATE TABLE notifications (
    sequence        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant          TEXT    NOT NULL,
    bot             TEXT    NOT NULL,
    session         TEXT    NOT NULL,
    task            TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    acknowledged_at INTEGER,
    lease           TEXT,
    lease_until     INTEGER,
    deliveries      INTEGER NOT NULL DEFAULT 0,
    record          TEXT    NOT NULL,
    CHECK ((lease IS NULL) = (lease_until IS NULL))
) STRICT;

CREATE INDEX notifications_of_bot ON notifications (tenant, bot, sequence);
CREATE INDEX notifications_of_task ON notifications (task);
CREATE INDEX notifications_pending_of_bot ON notifications (tenant, bot, sequence) WHERE acknowledged_at IS NULL;
CREATE INDEX notifications_pending_of_session ON notifications (tenant, bot, session, sequence) WHERE acknowledged_at IS NULL;
CREATE INDEX notifications_acknowledged ON notifications (acknowledged_at) WHERE acknowledged_at IS NOT NULL;
CREATE INDEX notifications_made ON notifications (created_at);
