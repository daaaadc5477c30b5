"""The only place that imports the Agents SDK."""
