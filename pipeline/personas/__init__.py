"""Personas: their specification as a file, the system prompt, and programmatic items that judge a reply's style."""
