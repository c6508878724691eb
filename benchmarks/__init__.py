"""`make bench`: scanbook compared with a baseline, the usual practice of the field, on one machine in one run.

`runner.bench` runs it. Nothing is imported here: the baseline runs in processes without scanbook's settings.
"""
