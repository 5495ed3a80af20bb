"""HTTP/2: a connection on h2, and the streams of its requests."""
