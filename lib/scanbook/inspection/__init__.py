"""Inspection of a trained network: where it looks (Grad-CAM), how robust it is, and what a mistake would be worth."""
