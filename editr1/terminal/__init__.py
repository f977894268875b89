"""Print to the terminal. Text from tables, models, servers and manifests is printed literally, never interpreted.

Every command prints through this package. Markup in brackets is printed as it is, and control characters are made visible,
so that a text can neither hide a part of itself nor send an escape sequence to the terminal. With the environment variable
NO_COLOR, nothing is coloured or styled (https://no-color.org).
"""
