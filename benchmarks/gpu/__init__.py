"""`python3 -m benchmarks.gpu --results DIR`: what only a GPU can say, the most telling first.

A run is a list of stages (stages.py), each with its share of the time and in processes of its own;
each process goes through items by name.  What began and what ended is written at once (records.py),
so that a run that is cut off leaves all it had; the summary (summary.py) is made of these records.
"""
