#!/bin/sh
# `split` and `curl --parallel`, in the current folder, which must be empty: FILE CHUNK_IDS URL, the token in ACCESS_TOKEN.
set -eu
split --lines "$2" --suffix-length 5 "$1" part-
truncate --size -1 part-* # the service wants no newline at the end
for part in part-*; do
    printf 'next\nurl = "%s"\nheader = "accessToken: %s"\nheader = "Content-Type: text/plain"\n' "$3" "$ACCESS_TOKEN"
    printf 'data-binary = "@%s"\noutput = "/dev/null"\nfail\n' "$part"
done | tail --lines +2 >transfers # without the first `next`
exec curl --parallel --parallel-max 8 --no-progress-meter --config transfers
