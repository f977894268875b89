"""What generates the verifier's traces, behind one protocol."""
