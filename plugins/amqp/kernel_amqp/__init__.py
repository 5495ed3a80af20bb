"""Driver amqp for kernel: a broker over RabbitMQ, on a native trio client for AMQP 0-9-1."""
