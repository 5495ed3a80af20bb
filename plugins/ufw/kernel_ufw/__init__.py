"""Protocols ufw_rpc and ufw_backoff for kernel: the formats of micro-framework."""
