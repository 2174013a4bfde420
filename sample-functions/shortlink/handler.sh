#!/bin/sh
# Short links: GET /NAME redirects to the address that links.txt has for NAME.
# Mode cgi: the script writes headers, an empty line, then the body.
set -eu

answer() { # answer STATUS BODY
  printf 'Status: %s\nContent-Type: text/plain\n\n%s\n' "$1" "$2"
  exit 0
}

case "$REQUEST_METHOD" in
GET | HEAD) ;;
*)
  printf 'Allow: GET, HEAD\n'
  answer '405 Method Not Allowed' 'only GET and HEAD'
  ;;
esac

name=${PATH_INFO#/}
while read -r key url; do
  if [ "$key" = "$name" ]; then
    printf 'Location: %s\n' "$url"
    answer '302 Found' "$url"
  fi
done <links.txt

answer '404 Not Found' 'no such link'
