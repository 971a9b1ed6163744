#!/usr/bin/env bash
# Measures the peers (bench/peers) and mosaik in turn, ROUNDS times, and prints
# the joint table: peers, mosaik, peers, mosaik, ... so that a slow quarter of an
# hour of the machine falls on both. From the top of the repository:
#
#   bench/peers-run.sh
#   ROUNDS=5 DIR=/data/tmp OUT=results bench/peers-run.sh
#
#   ROUNDS      times each side is measured; 3 unless set
#   DIR         directory on the disk to measure; the system's temporary one unless set
#   OUT         directory that gets the reports of each side and round, and the table; none unless set
#   BENCHFLAGS  further flags of mosaik-node bench, such as --seconds 5
#   PEERFLAGS   further flags of bench/peers, such as --records 500000
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
go=${GO:-go}
rounds=${ROUNDS:-3}
read -ra benchflags <<<"${BENCHFLAGS:-}"
read -ra peerflags <<<"${PEERFLAGS:-}"

work=$(mktemp -d ${DIR:+-p "$DIR"})
trap 'rm -rf "$work"' EXIT
"$go" build -buildvcs=false -trimpath -o "$work/mosaik-node" ./cmd/mosaik-node
(cd bench/peers && "$go" build -buildvcs=false -trimpath -o "$work/peers" .)

merge=()
for ((i = 1; i <= rounds; i++)); do
	echo "round $i of $rounds: peers" >&2
	"$work/peers" --dir "$work" --runs 1 "${peerflags[@]}" --json >"$work/peers$i.json" || [ $? -eq 3 ] # 3: some could not be measured
	echo "round $i of $rounds: mosaik" >&2
	"$work/mosaik-node" bench --dir "$work" --runs 1 "${benchflags[@]}" --json >"$work/mosaik$i.json" || [ $? -eq 3 ]
	merge+=(--peers "$work/peers$i.json" --merge "$work/mosaik$i.json")
done
"$work/mosaik-node" bench "${merge[@]}" | tee "$work/table.txt"
if [ -n "${OUT:-}" ]; then
	mkdir -p "$OUT"
	"$work/mosaik-node" bench "${merge[@]}" --json >"$work/joint.json"
	cp "$work"/*.json "$work/table.txt" "$OUT"
fi
