"""All that the service knows of Apple: its answers, signatures, clients, notifications, and the gateways to it."""
