-- When a task that has failed may be tried again.
ALTER TABLE tasks ADD COLUMN retry_at INTEGER; -- while ready; NULL: at once
