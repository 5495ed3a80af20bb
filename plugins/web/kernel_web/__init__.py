"""Dispatcher web for kernel: ASGI applications on hypercorn and trio."""
