"""llmops pipeline: operations from raw rows to a served, tool-calling agent.

Importing this package imports nothing else; see ``pipeline/operations.py`` for the catalogue.
"""

__version__ = "0.1.0"
