"""Base models: fetch, verify and list them."""
