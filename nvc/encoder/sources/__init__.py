"""What the encoder finds out about its source pictures before it codes them."""
