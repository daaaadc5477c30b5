"""The whole chain in one resumable command, and its report."""
