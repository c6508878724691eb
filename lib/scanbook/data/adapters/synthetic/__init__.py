"""Images that the library synthesises: the default dataset, whose truth is known, and the kinds of a stand-in."""
