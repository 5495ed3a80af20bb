"""A service as a program has it: a part of it that is open for a while, a function that is run in it once.

In comes a plan or the path of a manifest, out comes what the program wanted of it. Read `part_time.py` first.
"""
