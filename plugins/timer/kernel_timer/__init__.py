"""Dispatcher timer for kernel: intervals and cron."""
