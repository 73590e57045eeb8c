# generate.sh CSV CACHE: a table out of departures, remembering in CACHE how many there were.
set -eu
count=0
while IFS=, read -r time place quay; do
	printf '%s  quay %s  %s\n' "$time" "$quay" "$place"
	count=$((count + 1))
done < "$1"
echo "$count" > "$2/departures"
