"""Mutation testing: faults that are put into the code one by one, each of which a fast test has to notice."""
