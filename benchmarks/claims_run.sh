#!/usr/bin/env bash
# Everything that docs/claims.md tells, from nothing; may be stopped, and goes on where it was.
#
#   benchmarks/claims_run.sh DATA            # some 100 minutes of one core
#
# A base of 284,051 parameters and two rivals of its pre-training, the profile of its layers, the
# routers, and the comparisons.
set -u
data=$1
runs=runs/claims
python=${PYTHON:-python}
export OMP_NUM_THREADS=1

pretrain() {
  $python -m urushi train "pretraining-$1" --data "$data" -o "$runs/pretraining-$1" \
    --resume --device cpu --set compile=false --set precision=float32 \
    --set 'backbone.config={width: 16, enc_blk_nums: [0, 1, 1], middle_blk_num: 1, dec_blk_nums: [1, 1, 0]}' \
    --set 'data={pictures: [clean/cid22], patch: 64, batch: 16}' \
    --set 'schedule={steps: 600, warmup: 50}' --set 'validation={benchmarks: [], every: 600}'
}

# A comparison, or those of its cells that patterns name.
compare() {
  local name=$1 only=()
  shift
  for pattern in "$@"; do only+=(--only "$pattern"); done
  $python -m urushi compare "claim-$name" --data "$data" -o "$runs/$name" \
    --no-isolate --device cpu "${only[@]}"
}

small=$runs/pretraining-prod/pretraining-prod
[ -e "$small.safetensors" ] || pretrain prod
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
compare composition
compare adaptir
for order in single fixed; do
  [ -e "$runs/pretraining-$order/pretraining-$order.safetensors" ] || pretrain $order
done
compare prod
compare tuning
compare ranks
