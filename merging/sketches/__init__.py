"""What a scan keeps of a family, and what follows from that alone: plans."""
