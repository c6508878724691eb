"""For authors of notebooks and studies: the contract of a notebook, its linter, and templates that keep it.

The folder exports nothing: the command line imports the one module that a subcommand needs.
"""
