"""Code that needs transformers, matplotlib or scikit-learn."""
