"""Mutation testing: sources with one token changed, and whether a test notices.

    make mutants ARGS="--count 100 --seed 7"

python.py and cpp.py find the places that can be changed, reached.py the tests that run them, run.py
runs these tests on each mutant; equivalents.py lists the changes that no test can notice, with the
reasons.
"""
