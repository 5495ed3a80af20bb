"""Looking into a running service: a socket for commands such as `kernel tree`, answered beside the event loop.

In come lines of JSON from the command line, out go answers about the living tree. Read `orders.py: ORDERS` first.
"""
