#!/bin/sh
# From label maps and scans to the files in pimms_tf/weights: train.sh DATA POOL OUT. Resumes where it was stopped.
set -eu
data=$(realpath "$1") pool=$(realpath -m "$2") out=$(realpath -m "$3")
cd "$(dirname "$0")"
python brain.py draw "$data/labelmaps_synthseg" "$pool/brain" --count 270
python brain.py real "$data" "$pool/brain_real"
if [ ! -e "$out/brain/done" ]; then
    python brain.py train "$out/brain" "$pool/brain" "$pool/brain_real" --steps 450 --batch 2
    cp "$out/brain/brain.npz" ../../pimms_tf/data/assets/ && touch "$out/brain/done"
fi
python simulated.py "$data/labelmaps_synthseg" "$pool" --masks "$data/lesion_masks_mni" --count 160 --held 8
python real.py "$data" "$pool/real" ms3_101627 ms3_104670 ms3_104899 ms3_106639 ms3_111008 ms3_107130 \
    simvent_104252 simvent_105074 simvent_105465 mslesseg_p14_visit2 mslesseg_p14_visit3
python real.py "$data" "$pool/native" ms_native_p03 ms_native_p04 ms_native_p09 ms_native_p20 ms_long_p01 --alone
python segmenter.py "$out/segmenter" --pool "$pool/real:0.45" --pool "$pool/sim:0.55" --steps 3000
python classifier.py "$out/classifier" --pool "$pool/sim:0.5" --pool "$pool/real:0.2" --pool "$pool/native:0.3" \
    --other "$pool/other" --steps 1200 --batch 16 --lr 2.5e-3
python pack.py "$out/segmenter/average.npz" "$out/classifier/average.npz" ../../pimms_tf/weights --threshold 0.5
