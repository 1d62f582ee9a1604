"""The shell code of a Slurm job that records a set-up failure: the worker could not begin.

`module load` may have failed, or Python may not find alphagrid. Only the shell is available then, so it
writes the journal: `start` and `end`, as the worker would, each with the checksum that gzip computes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ...store.layout import ExperimentFiles

SHELL = r"""
alphagrid_newest() {  # journal of this run, if there is one
  local all=("$alphagrid_run"/journal-*.jsonl)
  if [ -e "${all[-1]}" ]; then echo "${all[-1]}"; fi
}
alphagrid_log() {  # the last lines that say something, as one
  tail -n 40 "$alphagrid_logs/${1}_0_log.out" | grep -av '^srun: \|^submitit \|^ *$' | tail -n 3 |
    cut -c -400 | while IFS= read -r line; do printf ' | %s' "$line"; done
}
alphagrid_json() {  # text inside quotes
  local text; text=$(printf %s "$1" | LC_ALL=C tr -c '\40-\176' ' ')
  text=${text//\\/\\\\}; printf %s "${text//\"/\\\"}"
}
alphagrid_reached() {  # steps and seconds of the last whole record
  tail -qn 40 "$alphagrid_run"/journal-*.jsonl 2>/dev/null | sed -n -e '/^{"kind":"alpha"/d' \
    -e 's/^{"kind":"[a-z]*","step":\([0-9]*\),"train_seconds":\([0-9.e+-]*\),.*"crc":[0-9]*}$/\1 \2/p' |
    tail -n 1
}
alphagrid_record() {  # kind, steps, seconds, its fields, number
  local record crc
  record=$(printf '{"kind":"%s","step":%s,"train_seconds":%s,%s,"time":%s,"seq":%s' \
    "$1" "$2" "$3" "$4" "$(date +%s.%N)" "$5")
  crc=$(printf %s "$record" | gzip -c | tail -c 8 | head -c 4 | od -An --endian=little -tu4 | tr -d ' ')
  printf '%s,"crc":%s}\n' "$record" "$crc"
}
alphagrid_last_words() {  # exit code
  set +e
  if [ "$1" -ge 128 ] || [ "$1" -eq 3 ]; then return; fi  # killed, or there was no room to write: no failure
  if [ "$1" -eq 0 ] && [ -n "$alphagrid_ready" ]; then return; fi
  local newest why job log number step seconds start file
  newest=$(alphagrid_newest)
  if [ "$newest" != "$alphagrid_before" ]; then return; fi  # the worker began, and tells the rest itself
  why="ended before the run could begin"
  if [ -z "$alphagrid_ready" ]; then why="set-up failed${alphagrid_failed:+: $alphagrid_failed}"; fi
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID}
  log=$(alphagrid_log "$job")
  number=${newest##*journal-}; number=${number%.jsonl}; number=$((10#${number:-0} + 1))
  read -r step seconds < <(alphagrid_reached)
  step=${step:-0}; seconds=${seconds:-0.0}
  start=$(printf '"attempt":%s,"resume_step":%s,"fresh":false,"submission":"%s","host":"%s","job":%s' \
    "$number" "$step" "$alphagrid_submission" "$(uname -n)" "{\"cluster\":\"slurm\",\"job_id\":\"$job\"}")
  why=$(alphagrid_json "$why (exit code $1 on $(uname -n))${log:+:${log#" |"}}")
  mkdir -p "$alphagrid_run"; file=$(printf '%s/journal-%04d.jsonl' "$alphagrid_run" "$number")
  set -o noclobber
  {
    alphagrid_record start "$step" "$seconds" "$start" 0
    alphagrid_record end "$step" "$seconds" "\"status\":\"failed\",\"reason\":\"$why\"" 1
  } > "$file" && sync "$file"
}
"""


def before_setup(files: ExperimentFiles, submission: str, runs: Sequence[str]) -> list[str]:
    """Return the script lines that record a set-up failure, for the array tasks that run `runs`."""
    return [
        *SHELL.strip().splitlines(),
        "alphagrid_ready= alphagrid_failed=",
        f"alphagrid_submission={shlex.quote(submission)}",
        f"alphagrid_logs={shlex.quote(str(files.submitit.absolute()))}",
        f"alphagrid_runs=({' '.join(runs)})",
        f"alphagrid_run={shlex.quote(str(files.path.absolute()))}/${{alphagrid_runs[${{SLURM_ARRAY_TASK_ID:-0}}]}}",
        "alphagrid_before=$(alphagrid_newest)",
        "trap 'alphagrid_failed=$BASH_COMMAND' ERR",
        "trap 'alphagrid_last_words $?' EXIT",
        "trap 'trap - ERR EXIT TERM; kill -TERM $$' TERM",  # the exit code does not tell that it was killed
    ]


def after_setup() -> list[str]:
    """Return the script lines that mark the set-up as successful."""
    return ["alphagrid_ready=yes"]
