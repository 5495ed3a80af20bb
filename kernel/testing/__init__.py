"""What services and plugins are tested with."""
