"""What ASGI asks of a server, whatever protocol the client speaks: lifespans, routes, and the life of one request."""
