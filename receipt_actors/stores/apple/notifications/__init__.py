"""Apple's server notifications (version 2): what they say, how they are handled, and a web shell of each kind."""
