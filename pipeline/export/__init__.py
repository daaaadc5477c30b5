"""Adapter, merged model and GGUF files from a training run, and the gate that proves they say the same."""
