"""Watch and control runs: list, status, logs, cancel, resume."""
