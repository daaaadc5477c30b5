"""Code that needs transformers."""
