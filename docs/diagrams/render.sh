#!/usr/bin/env bash
# Render every diagram (*.mmd) of this folder to SVG, so that the site shows it without JavaScript or network access.
# Needed only after an edit: Node.js with mermaid-cli on PATH as mmdc, and Chromium (PUPPETEER_EXECUTABLE_PATH).
set -euo pipefail
cd "$(dirname "$0")"
settings=$(mktemp --suffix .json)
browser=$(mktemp --suffix .json)
trap 'rm -f "$settings" "$browser"' EXIT
echo '{"theme": "neutral", "fontFamily": "sans-serif", "htmlLabels": false, "flowchart": {"htmlLabels": false, "nodeSpacing": 25, "rankSpacing": 28, "wrappingWidth": 330, "subGraphTitleMargin": {"top": 4, "bottom": 16}}}' >"$settings"
echo '{"args": ["--no-sandbox"]}' >"$browser"
for source in ${1:-*.mmd}; do
    mmdc --quiet --configFile "$settings" --puppeteerConfigFile "$browser" --input "$source" --output "${source%.mmd}.svg"
    # A test compares this digest with the source, so that a diagram that was edited but not rendered is found.
    printf '<!-- source sha256:%s -->\n' "$(sha256sum <"$source" | cut -d' ' -f1)" >>"${source%.mmd}.svg"
done
