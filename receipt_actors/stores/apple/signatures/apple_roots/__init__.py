"""Apple's root certificate, as package data; ``README.rst`` beside it says where it is from."""
