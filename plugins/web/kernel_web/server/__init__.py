"""Listeners, clients, and the way they stop."""
