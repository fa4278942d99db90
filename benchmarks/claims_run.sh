#!/usr/bin/env bash
# Everything that docs/claims.md tells, from nothing; may be stopped, and goes on where it was.
#
#   benchmarks/claims_run.sh DATA            # some three hours of one core
#
# A base of 284,051 parameters and four rivals of its pre-training, the profile of its layers, the
# routers, and the comparisons.
set -u
data=$1
runs=runs/claims
python=${PYTHON:-python}
export OMP_NUM_THREADS=1

# A base; what else is set stands behind its name.
pretrain() {
  local name=$1
  shift
  [ -e "$runs/pretraining-$name/pretraining-$name.safetensors" ] && return
  $python -m urushi train "pretraining-$name" --data "$data" -o "$runs/pretraining-$name" \
    --resume --device cpu --set compile=false --set precision=float32 \
    --set 'backbone.config={width: 16, enc_blk_nums: [0, 1, 1], middle_blk_num: 1, dec_blk_nums: [1, 1, 0]}' \
    --set 'data={pictures: [clean/cid22], patch: 64, batch: 16}' \
    --set 'schedule={steps: 600, warmup: 50}' --set 'validation={benchmarks: [], every: 600}' "$@"
}

# A comparison, or those of its cells that patterns name; `name@16,64` is at these numbers of pairs.
compare() {
  local name=${1%@*} options=()
  [ "$name" = "$1" ] || options+=(--set "pairs=[${1#*@}]")
  shift
  for pattern in "$@"; do options+=(--only "$pattern"); done
  $python -m urushi compare "claim-$name" --data "$data" -o "$runs/$name" \
    --no-isolate --device cpu "${options[@]}"
}

small=$runs/pretraining-prod/pretraining-prod
pretrain prod
[ -e "$small.profile.json" ] || $python -m urushi profile --base "$small.safetensors" \
  --pairs "$data/pairs/derain_rain100h/train" --pairs "$data/pairs/denoise_polyu/train" \
  --tune-steps 100 --steps 8 --limit 8 --patch 64 --device cpu -o "$small.profile.json"

# What decides a claim comes first, then what stands beside it.
mixed='low resolution and noise'
compare ranks 'low light/by contribution' 'low light/even' 'low light/inverted'
compare adaptir "$mixed/AdaptIR" "$mixed/AdaptFormer" "$mixed/LoRA"
[ -e "$runs/router-made-2/router.safetensors" ] ||
  $python benchmarks/claims_routers.py --data "$data" --runs "$runs"
compare experts 'experts k=1' 'one shared LoRA' random full
compare ranks 'low light/LoRA *' 'rain/by contribution' rain/even rain/inverted 'rain/LoRA *'
compare experts oracle 'gates*' 'guided*'
compare adaptir "$mixed/without *" "low resolution/*"
compare experts
compare adaptir
compare rates
pretrain single
pretrain degae-like
pretrain masked --set pretext.until=300
pretrain fixed
# A task after the other, each with all its rows and seeds.
for task in 'low light' rain noise; do
  compare prod@16,64 "$task"
  compare tuning@16,64 "$task"
done
compare composition 'LoRA experts' 'one shared LoRA' composed
for task in haze 'motion blur'; do
  compare prod@16,64 "$task"
  compare tuning@16,64 "$task"
done
compare ranks
compare composition
compare prod
compare tuning
compare rivals
