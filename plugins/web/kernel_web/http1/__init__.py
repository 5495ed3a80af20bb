"""HTTP/1.1: a core without I/O (`head`, `parser`, `framing`), and the connection and exchange that serve with it."""
