"""The actors by which several nodes agree which of them works, and how the limits are divided."""
