"""The images of a study: read, listed in a manifest with their labels and groups, checked, split and cached."""
