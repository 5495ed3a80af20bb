"""The way of one delivery, from its source to settled.

In come deliveries that dispatchers bring, out come outcomes, each told to its source once. Read `intake.py` first, then
`pipeline.py`.
"""
