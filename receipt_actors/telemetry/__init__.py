"""What happened, counted: casts to this room may be lost, and its crash disturbs no other."""
