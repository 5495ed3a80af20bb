"""A plan as a living tree: started, restarted, drained, stopped; and the process around it.

In comes a `Plan`, out comes a `Result`. Read `run.py: serve` first, then `supervisor.py`.
"""
