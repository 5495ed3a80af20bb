"""Queues and deliveries over links. In: the topology and envelopes; out: deliveries. Read `broker` first."""
