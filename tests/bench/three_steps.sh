#!/bin/sh
# A job of three steps as the git and bwrap commands that it comes to, and nothing else: no queue,
# nothing durable, no logs, no redaction. The bench gives git's variables, and the sandbox's options
# and filter as files.
#
#     three_steps.sh SOURCE PLACE     (PLACE has work/, home/{1,2,3}.sh, options, filter)
set -eu
source=$1
place=$2
history=$place/history.git

snapshot() {
    find . -name .git -prune -o -type f -printf '%P\0' | git update-index --add --replace -z --stdin
    git write-tree
}

prove() {
    [ "$1" != "$2" ] || return 0
    git diff-tree -r -p --binary --full-index --find-renames --no-ext-diff --no-textconv --no-color \
        --src-prefix=a/ --dst-prefix=b/ "$1" "$2" >"$place/patch.diff"
    export GIT_INDEX_FILE="$history/index.check"
    git read-tree "$1"
    git apply --whitespace=nowarn --cached - <"$place/patch.diff"
    [ "$(git write-tree)" = "$2" ]
    export GIT_INDEX_FILE="$history/index"
}

git clone --quiet --bare --no-local --single-branch --template= \
    --upload-pack="git -c 'safe.directory=*' -c pack.window=0 -c pack.compression=0 upload-pack" \
    -- "$source" "$history"
export GIT_DIR="$history" GIT_INDEX_FILE="$history/index" GIT_WORK_TREE="$place/work"
cd "$place/work"
git rev-parse --verify --quiet 'HEAD^{commit}' >"$place/commit"
git read-tree --reset -u HEAD
mkdir -p .git/objects/info .git/info
cp -r "$history/HEAD" "$history/refs" "$history/config" "$history/index" .git
cp -r "$history/objects/pack" .git/objects
git ls-files --stage -z >"$place/listed"
base=$(git write-tree)

for step in 1 2 3; do
    before=$(snapshot)
    bwrap --args 9 -- sh -eu "$place/home/$step.sh" 8<"$place/filter" 9<"$place/options" \
        </dev/null >"$place/$step.stdout" 2>"$place/$step.stderr"
    after=$(snapshot)
    prove "$before" "$after"
done
prove "$base" "$after"
