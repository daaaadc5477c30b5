"""The task agent: OpenAI Agents SDK on a served model, with the live Task API behind its tools."""
