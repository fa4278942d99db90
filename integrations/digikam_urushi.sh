#!/bin/sh
# Mends pictures with Urushi in digiKam's batch queue manager.
#
# Put this file where it can stay. In the batch queue manager take the tool "User Shell Script"
# (Custom Tools), choose an output file type other than a raw one, and enter as its script, with
# the place of this file:
#
#     sh "$HOME/digikam_urushi.sh" --task auto --strength 1 <<'END'
#     $INPUT
#     $OUTPUT
#     END
#
# What stands before << are options of  urushi restore  ; --router FILE and --adapter FILE go, too.
#
# digiKam writes both paths, in double quotes, into the text of the script; between <<'END' and END
# the shell leaves them as they are, so $, ` and " in the names of folders do no harm. URUSHI names
# the program where it is not found by name.
#
# SPDX-License-Identifier: Apache-2.0

# A path in the quotes that digiKam puts around it.
unquoted() {
  text=${1#\"}
  printf '%s' "${text%\"}"
}

IFS= read -r input && IFS= read -r output || {
  echo "digikam_urushi.sh: expected two lines, the paths that digiKam puts for \$INPUT and \$OUTPUT" >&2
  exit 127
}
input=$(unquoted "$input")
output=$(unquoted "$output")

# The output is there already, and empty: digiKam makes it to have a name.
"${URUSHI:-urushi}" restore --overwrite "$@" -o "$output" "$input" </dev/null && exit 0

# digiKam takes what is there for the result, and 127 is the one code that it takes for a failure.
rm -f "$output"
exit 127
