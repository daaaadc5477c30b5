"""Chat with a served model: the client, and the embedded server behind it. Knows no task and no stage."""
