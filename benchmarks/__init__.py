"""`make bench`: scanbook against the usual practice of the field, on one machine in one run, measured in turn.

`running.bench` runs it. Nothing is imported here: the usual practice runs in processes without scanbook's settings.
"""
