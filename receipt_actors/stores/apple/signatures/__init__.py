"""Verifies what Apple signs: JWS, chains of certificates, in processes beside this one where there are any."""
