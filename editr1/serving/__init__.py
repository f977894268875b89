"""The HTTP server that scores image edits with a verifier, the server's inference engines, and a client for it."""
