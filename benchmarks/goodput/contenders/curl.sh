#!/bin/sh
# `curl --parallel --retry` over the pieces of `split`, in the current folder, which must be empty.
#
# Arguments as for every contender: FILE CHUNK_IDS URL COUNT WINDOW_S; the token is in the environment.
# The limit cannot be told: --rate has no effect on parallel transfers. By default curl waits 1 s before a
# retry and then twice as long each time, and takes 408, 429, 500, 502, 503 and 504 for transient.
set -eu
split --lines "$2" --suffix-length 4 "$1" part-
truncate --size -1 part-* # the service wants no newline at the end
for part in part-*; do
    printf 'next\nurl = "%s"\nheader = "accessToken: %s"\nheader = "Content-Type: text/plain"\n' "$3" "$ACCESS_TOKEN"
    printf 'data-binary = "@%s"\noutput = "/dev/null"\nretry = 10\nfail\n' "$part"
done | tail --lines +2 >transfers # without the first `next`
exec curl --parallel --parallel-max 8 --no-progress-meter --config transfers
