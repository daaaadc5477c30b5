"""Heavy libraries of the economics stage."""
