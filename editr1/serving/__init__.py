"""The reward server, which scores image edits with a verifier over HTTP, its inference engines and its client."""
