#!/usr/bin/env bash
# Install Debian's Chromium and the smallest LaTeX with booktabs, unless they are here; needs root.
set -euo pipefail
missing=()
command -v chromium > /dev/null || missing+=(chromium)
command -v pdflatex > /dev/null || missing+=(texlive-latex-base texlive-latex-recommended)
[ ${#missing[@]} -eq 0 ] && exit 0
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
