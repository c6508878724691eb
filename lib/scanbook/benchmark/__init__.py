"""Measures training, inference and what they cost, on the machine at hand."""
