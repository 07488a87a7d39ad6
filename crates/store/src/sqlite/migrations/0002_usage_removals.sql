-- What a tenant has stored, kept up to date with every change: counting it for each new task would take too long. `bytes` of a row is what
-- was counted for it, so that the same is taken off when the row goes. Rows of before this step count as rows, with no bytes.
CREATE TABLE usage (
    tenant TEXT    NOT NULL PRIMARY KEY,
    tasks  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO usage (tenant, tasks, bytes) SELECT tenant, count(*), 0 FROM tasks GROUP BY tenant;
ALTER TABLE tasks ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE notifications ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

-- Task directories that are still to be removed, of tasks that are forgotten already. They go with their sandbox.
CREATE TABLE removals (
    sandbox TEXT NOT NULL,
    task    TEXT NOT NULL,
    PRIMARY KEY (sandbox, task)
) STRICT, WITHOUT ROWID;

-- Small facts of the server itself, by name.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The notifications that a lease holds are found without a look at all that are pending.
CREATE INDEX notifications_leased ON notifications (lease) WHERE lease IS NOT NULL;

-- Pages of a tenant's sandboxes are read in their order.
CREATE INDEX sandboxes_of_tenant ON sandboxes (tenant, id);
