"""What methods measure over a whole family before they decide tensor by tensor."""
