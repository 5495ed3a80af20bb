"""The command line: its commands, what they show, and the skeletons that `kernel new` writes.

In come arguments and the environment, out come text and an exit status. Read `cli.py: main` first.
"""
