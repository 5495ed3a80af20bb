"""The broker of `kernel.abc` over STOMP: what it declares, sends, takes and settles.

In come topologies, envelopes and subscriptions; out go deliveries, each settled once. Read `broker.py` first, then
`consumer.py` for what is taken and `outbox.py` for what is sent; what servers differ in is in `dialect.py`, `rabbitmq.py`
and `activemq.py`.
"""
