"""Reports: the session of a notebook, report sections, plots, checklists and pages."""
