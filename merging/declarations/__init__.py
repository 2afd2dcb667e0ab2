"""What a method says of itself, and the values that it is given."""
