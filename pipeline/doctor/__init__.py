"""Is this machine ready? Reads facts, judges them, and names the command that mends each problem."""
