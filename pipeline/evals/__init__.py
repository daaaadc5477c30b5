"""Measure a served model on cases with exact ground truth: every rate with an interval, every failure with a code."""
