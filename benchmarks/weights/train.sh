#!/bin/sh
# From label maps and scans to the files in pimms_tf/weights: train.sh DATA POOL OUT [SHARE]. Resumes where it was stopped.
# SHARE is the part of all subjects and steps, 1 if not given; below 1 the package stays as it is, and OUT/weights and
# OUT/brain hold what would have become of it.
set -eu
data=$(realpath "$1") pool=$(realpath -m "$2") out=$(realpath -m "$3") share=${4:-1}
cd "$(dirname "$0")"
of() { awk -v n="$1" -v share="$share" 'BEGIN { n = int(n * share + 0.5); print n < 2 ? 2 : n }'; }
package=../../pimms_tf
weights=$package/weights
[ "$share" = 1 ] || weights=$out/weights
mkdir -p "$weights"

python brain.py draw "$data/labelmaps_synthseg" "$pool/brain" --count "$(of 270)"
python brain.py real "$data" "$pool/brain_real"
if [ ! -e "$out/brain/done" ]; then
    python brain.py train "$out/brain" "$pool/brain" "$pool/brain_real" --steps "$(of 450)" --batch 2
    [ "$share" != 1 ] || cp "$out/brain/brain.npz" "$package/data/assets/"
    touch "$out/brain/done"
fi
python simulated.py "$data/labelmaps_synthseg" "$pool" --masks "$data/lesion_masks_mni" --seed 7 \
    --count "$(of 336)" --held "$(of 8)"
python phantoms.py "$pool/phantom" --count "$(of 24)"
python real.py "$data" "$pool/real" ms3_101627 ms3_104670 ms3_104899 ms3_106639 ms3_111008 ms3_107130 \
    simvent_104252 simvent_105074 simvent_105465 mslesseg_p14_visit2 mslesseg_p14_visit3
python real.py "$data" "$pool/native" ms_native_p03 ms_native_p04 ms_native_p09 ms_native_p20 ms_long_p01 --alone
python segmenter.py "$out/segmenter" --pool "$pool/real:0.38" --pool "$pool/sim:0.55" --pool "$pool/phantom:0.07" \
    --steps "$(of 25200)" --hold 0.6 --half
python classifier.py "$out/classifier" --pool "$pool/sim:0.40" --pool "$pool/real:0.22" --pool "$pool/native:0.26" \
    --pool "$pool/phantom:0.12" --other "$pool/other" --other-share 0.33 --steps "$(of 2500)" --batch 16 --lr 2.5e-3 --seed 5
python strangers.py "$data/labelmaps_synthseg" "$pool" --masks "$data/lesion_masks_mni" --count 0 --held "$(of 10)" --seed 7
python calibrate.py "$out/classifier/average.npz" "$out/classifier/calibrated.npz" "$pool/real" "$pool/native" \
    "$pool/held" --other "$pool/strange_held"
python pack.py "$out/segmenter/average.npz" "$out/classifier/calibrated.npz" "$weights" \
    --threshold 0.5 --smallest-lesion-ml 0.02 --least-score 0.5 --least-share 0.85 \
    --volume-range 0.75 0.25 0.6 1.1 1.5 0.875
