"""What NiftyNet leaves behind a run: model folders, histogram files, TensorFlow 1 checkpoints, console lines."""
