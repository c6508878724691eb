"""Tools of the developers of scanbook; not installed."""
