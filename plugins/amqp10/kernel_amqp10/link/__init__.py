"""One connection: the engine of qpid-proton, driven by trio. In: bytes and outcomes; out: links. Read `engine` first."""
