"""How changes get from the writer to the follower."""
