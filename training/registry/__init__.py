"""The registry: one file that lists the runs, so that thousands are listed and ranked at once.

It is an index of the run folders and nothing more: what it says of a run is read anew where the folder changed, so a
registry that lags, is damaged or is gone costs a second look at the folders and never a fact.
"""
