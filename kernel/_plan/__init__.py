"""A manifest and what is installed become a plan, or a list of everything that is wrong. Pure: no I/O, no trio.

In come a `Manifest` and a `Registry`, out comes a frozen `Plan`. Read `plan.py: resolve` first.
"""
