"""Parts of the compute planner that need torch."""
