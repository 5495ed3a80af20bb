"""Messaging for kernel over any broker: dispatcher consumer, drivers publisher and rpc_client."""
