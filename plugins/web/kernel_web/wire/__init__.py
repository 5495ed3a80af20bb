"""What carries bytes: listening sockets, TLS, one channel for each client, and the clock that their deadlines go by."""
