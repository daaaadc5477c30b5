"""The running example: five task tools, the SQLite store that executes them, and the due-date policy."""
