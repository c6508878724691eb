"""Reports: the session of a notebook, report sections, plots, checklists and pages.

Import its modules by name; this file imports neither pandas nor matplotlib, so that the command line starts fast.
"""
