"""What AMQP 1.0 cannot do: declare and ask. In: topology; out: whether it is there. Read `directory` first."""
