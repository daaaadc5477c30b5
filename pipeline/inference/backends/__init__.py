"""The only place that imports the inference engine."""
