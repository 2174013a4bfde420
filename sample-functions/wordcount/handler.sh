#!/bin/sh
# Counts what comes in on STDIN. ?unit=lines or ?unit=bytes in the URL counts
# those instead of words: the query string arrives as a variable.
set -eu

case "${Http_Query:-}" in
"" | unit=words) exec wc -w ;;
unit=lines) exec wc -l ;;
unit=bytes) exec wc -c ;;
esac

# A status other than zero makes the answer a 500 with X-Exit-Code, and what
# was written to STDOUT is its body.
echo "unit must be words, lines or bytes"
exit 2
