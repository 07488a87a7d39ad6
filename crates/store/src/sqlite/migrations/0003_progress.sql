-- What changes of a task stands in `progress`; `record` is what was accepted, and never changes. Without a progress, the row is of before
-- this step and its record holds both.
ALTER TABLE tasks ADD COLUMN progress TEXT;

-- SQLite rewrites a row as a whole, with all of its overflow pages. So a large record has a row of its own, and `tasks.record` is empty.
CREATE TABLE large_records (
    task   TEXT NOT NULL PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    record TEXT NOT NULL
) STRICT;

INSERT INTO large_records (task, record)
SELECT id, record FROM tasks INDEXED BY tasks_unfinished WHERE finished_at IS NULL AND octet_length(record) > 4096;
UPDATE tasks SET record = '' WHERE id IN (SELECT task FROM large_records);
