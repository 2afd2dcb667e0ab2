"""What the machine lends: memory, locks, signals, small files."""
