"""`python3 -m benchmarks.gpu --results DIR`: what only a GPU can say, the most telling first.

A run is a list of stages (stages.py), each with its share of the time and in processes of its own:
pytest's, of which every test is recorded as it begins and ends, and `python -m benchmarks`, which
writes after every record.  So a run that is cut off leaves all it had, for the summary.
"""
