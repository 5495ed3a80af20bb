"""Protocol raw for kernel: the bytes as they are."""
