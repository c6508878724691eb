"""Images drawn by the library: a dataset whose every answer is known, and what the shipped backbone learnt from."""
