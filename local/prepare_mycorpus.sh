#!/usr/bin/env bash
# Make data/train and data/test, with trial lists, from any folder of recordings, and a summary of it (docs/own_corpus.md).
# e.g.: local/prepare_mycorpus.sh /corpora/mine data
test=               # folder of the test speakers, laid out like the corpus
trials=             # trial list, with paths relative to --test or to the corpus
speaker_level=0     # level of the folders that are speakers, 1 for those in the corpus folder (0: found out)
speaker_regex=      # regular expression on the path below the corpus: group 1 or (?P<speaker>...); (?P<session>...)
meta=               # CSV or TSV with a header: path, speaker, session, gender and more; or speaker, gender and more
hard_by=            # columns of --meta in which the non-targets of the hard list agree (empty: gender, or else the first of few values)
test_share=0.2      # share of the speakers held out for tests, without --test and --trials
max_missing=0.0     # share of recordings that cannot be read, are silent or have no speaker; they are left out
max_duplicates=0.0  # share of recordings that belong to two speakers; they are left out
max_missing_trials=0.0 # share of the recordings of --trials that may not be there
max_shared_speakers=0.0 # share of the speakers of --test that may also be trained on
nj=2                # processes
seed=1              # random seed of the test speakers and trials
# <corpus> <data>
. "$(dirname "$0")/../utils/step.sh"
corpus=$1; data=$2

# List the corpus as it is now, so that adding, removing or replacing a file remakes the data.
roots=("$corpus" ${test:+"$test"} ${trials:+"$trials"} ${meta:+"$meta"})
if in_status; then
  require_file "${roots[@]}"
  list=$VOX_SCRATCH/corpus
else
  list=$data/corpus
fi
python3 -m local.list_corpus "$list" "${roots[@]}"
if up_to_date "$data/.done_prepare" "$list"; then
  in_status || echo "summary of the recordings: ${data#"$PWD"/}/summary.txt" >&2
  exit 0
fi

step_begins
python3 -m local.prepare_mycorpus ${test:+--test "$test"} ${trials:+--trials "$trials"} ${meta:+--meta "$meta"} \
  --speaker-level "$speaker_level" --speaker-regex "$speaker_regex" --hard-by "$hard_by" --test-share "$test_share" \
  --max-missing "$max_missing" --max-duplicates "$max_duplicates" --max-missing-trials "$max_missing_trials" \
  --max-shared-speakers "$max_shared_speakers" --nj "$nj" --seed "$seed" "$corpus" "$data"
for set in train test; do
  validate "$data/$set"
done
outputs=("$data"/{train,test}/{wav.scp,utt2spk,spk2utt} "$data"/test/trials/* "$data"/{ids.tsv,summary.txt,picked.sh})
for table in "$data"/{train,test}/spk2{gender,age}; do [ ! -e "$table" ] || outputs+=("$table"); done
mark_done "$data/.done_prepare" "$list" -- "${outputs[@]}"
