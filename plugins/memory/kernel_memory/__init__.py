"""Driver memory for kernel: a broker inside the process."""
