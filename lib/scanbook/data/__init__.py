"""The images of a study: read, listed in a manifest with their labels and groups, checked, split and cached.

It exports nothing itself, because serving imports `data.images` and must not import pandas with it.
"""
