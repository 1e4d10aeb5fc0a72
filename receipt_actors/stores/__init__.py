"""One room a store. Each brings its rules, clients, gateways and settings."""
