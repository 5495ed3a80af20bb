"""Protocol json for kernel: JSON bodies."""
