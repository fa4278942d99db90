#!/bin/sh
# Fetches what the page uses of others from the npm registry, at these versions, into this folder.
#   sh urushi/serve/static/vendor/vendor.sh
set -eu
cd "$(dirname "$0")"
slider=8.0.7
zoom=6.1.1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # NAME VERSION: unpacks the package into $work/NAME
    mkdir "$work/$1"
    (cd "$work" && npm pack --silent "$1@$2" >/dev/null && tar xzf "$1-$2.tgz" -C "$1" --strip-components 1)
}

fetch img-comparison-slider "$slider"
mkdir -p img-comparison-slider
# Without the line that names a map, which is not here.
sed '/^\/\/# sourceMappingURL=/d' "$work/img-comparison-slider/dist/index.js" >img-comparison-slider/index.js
cp "$work/img-comparison-slider/dist/styles.css" img-comparison-slider/styles.css
# The package states its licence, MIT, and holds no text of it: img-comparison-slider/LICENSE is kept.

fetch openseadragon "$zoom"
mkdir -p openseadragon
sed '/^\/\/# sourceMappingURL=/d' "$work/openseadragon/build/openseadragon/openseadragon.min.js" >openseadragon/openseadragon.min.js
cp "$work/openseadragon/LICENSE.txt" openseadragon/LICENSE

{
    echo "# What the page uses of others"
    echo
    echo "Fetched by vendor.sh, unchanged but for the line that names a source map."
    echo
    echo "| package | version | licence | file | sha256 |"
    echo "| --- | --- | --- | --- | --- |"
    for file in img-comparison-slider/index.js img-comparison-slider/styles.css openseadragon/openseadragon.min.js; do
        name=${file%%/*}
        case $name in
        openseadragon) version=$zoom licence=BSD-3-Clause ;;
        *) version=$slider licence=MIT ;;
        esac
        echo "| $name | $version | $licence | $file | $(sha256sum "$file" | cut -d' ' -f1) |"
    done
} >README.md
