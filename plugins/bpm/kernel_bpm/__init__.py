"""Protocol bpm for kernel: the routed JSON messages of Shiva."""
