"""Inspection of a trained network: where it looks (Grad-CAM), and how robust it is to corrupted images."""
