"""From pictures and instructions to training rows, over any VLM endpoint."""
