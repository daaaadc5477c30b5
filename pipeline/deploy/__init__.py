"""Serve a model: the embedded server under supervision, or a running Ollama."""
