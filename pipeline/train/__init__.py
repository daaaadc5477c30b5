"""Fine-tuning: one typed recipe, interchangeable backends, resumable runs."""
