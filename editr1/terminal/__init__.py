"""Print to the terminal.

Text from tables, models, servers and manifests is printed literally. Every command prints through this package.
Markup in brackets is not interpreted, and control characters are escaped. A text can therefore neither hide parts of
itself nor send escape sequences to the terminal. If the environment variable NO_COLOR is set, output has no colours
or styles (https://no-color.org).
"""
