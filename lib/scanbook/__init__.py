"""Notebook research suite for medical image classification."""
