#!/bin/sh
# The image's program: the departures, or those of one quay with -e QUAY=2.
cat /srv/board.txt
if [ "$QUAY" = all ]; then
	cat "$@"
else
	grep "quay $QUAY" "$@"
fi
