"""One connection under trio: made, kept alive, read and written, from its opening to its end.

Read `link.py` first, then `keeper.py` for the one that is made again.
"""
