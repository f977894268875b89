"""Settings of every stage, chart and cluster as pydantic models, and the loader that reads them."""
