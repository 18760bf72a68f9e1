"""Comparing starting points on one labelled data set: trials, worker processes, records, tests, report."""
