"""Code that needs matplotlib."""
