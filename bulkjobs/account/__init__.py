"""What all requests of one API key share: the gate before each of them, and the access token."""
