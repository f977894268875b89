"""Settings of all stages, charts and clusters as pydantic models, and the loader that reads them."""
