-- The secrets of tasks, encrypted with a key that is not in this file. `launch` goes when the command was started, `values` with the end of
-- the task, once no more of its output is to be retained, or if `keep_values` is set, with its row.
CREATE TABLE secrets (
    task        TEXT    NOT NULL PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    launch      BLOB,
    "values"    BLOB,
    keep_values INTEGER NOT NULL
) STRICT;
