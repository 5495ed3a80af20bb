"""The log: what is said anywhere in a service -> one record a line, on standard error or in a file that rotates.

In come events, and records of structlog, `logging`, `warnings` and Python itself; all of them leave through one call.
Read `log.py: Log` first.
"""
