#!/usr/bin/env bash
# new-results.sh BASE: check every result that was added since BASE, and write what each machine's answer is into the job's
# summary. Names of files come from strangers: they are passed as arguments, never evaluated, and shown as code.
set -uo pipefail
summary=${GITHUB_STEP_SUMMARY:-/dev/stdout}
python=${AGGREGATE_PYTHON:-aggregate/.venv/bin/python}
status=0
git diff --name-only -z --diff-filter=AM --merge-base "$1" -- 'results/*.json' 'results/*.json.gz' ':!results/peers' > added ||
  exit 1
while IFS= read -r -d '' file; do
  {
    echo "### New result"
    echo '```text'
    printf '%s\n\n' "$file" | tr -d '`'
  } >> "$summary"
  "$python" -m aggregate check "./$file" > said 2>&1 || status=1
  "$python" -m aggregate results --mine "./$file" >> said 2>&1
  tr -d '`' < said >> "$summary"
  echo '```' >> "$summary"
done < added
[ -s added ] || echo "No result was added." >> "$summary"
rm -f added said
exit $status
