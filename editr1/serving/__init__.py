"""The HTTP server that scores image edits with a verifier, its inference engines, and its client."""
