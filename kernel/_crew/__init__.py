"""Several processes of one service: a parent that starts and watches them, and what each of them sees of the others.

In comes how to start a process, out go an exit status, one port for all, and answers for all. Read `parent.py` first.
"""
