"""Types and helpers that every stage shares; imports no stage and no heavy library."""
