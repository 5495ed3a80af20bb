"""Protocols nameko_events and nameko_rpc for kernel: the formats of Nameko."""
