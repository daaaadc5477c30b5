"""Data engineering: validate, preview, convert, clean, deduplicate, split, decontaminate, find PII, report."""
