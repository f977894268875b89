"""The reward server, its engines and its client."""
