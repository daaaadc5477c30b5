"""MCP adapter of the llmops pipeline (run with ``python -m mcp_server``)."""
