"""One connection to RabbitMQ under trio, from the first packet to its loss, and what opens it again.

In come settings and methods, out go answers, confirms and deliveries, each to the channel that it is of. It knows
nothing of queues or of the kernel's messages. Read `link.py` first, then `channel.py`.
"""
