"""The words that NiftyNet 0.6 knows for optimisers, losses, metrics and the like; those for networks are in `programs`.

Source: `niftynet/engine/application_factory.py`, `niftynet/utilities/user_parameters_default.py`.
"""

ACTIVATIONS = (
    "relu",
    "relu6",
    "elu",
    "softplus",
    "softsign",
    "sigmoid",
    "tanh",
    "prelu",
    "selu",
    "leakyrelu",
    "dropout",
)
INITIALISERS = (
    "constant",
    "zeros",
    "ones",
    "uniform_scaling",
    "orthogonal",
    "variance_scaling",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
)
OPTIMISERS = ("adam", "gradientdescent", "momentum", "nesterov", "adagrad", "rmsprop")
LOSSES = (
    "CrossEntropy",
    "CrossEntropy_Dense",
    "Dice",
    "Dice_NS",
    "Dice_Dense",
    "Dice_Dense_NS",
    "Tversky",
    "GDSC",
    "DicePlusXEnt",
    "WGDL",
    "SensSpec",
    "VolEnforcement",
    "DicePlusXEntTopK",
    "MultiLabelCrossEntropy",
)
METRICS = (
    "dice",
    "Dice",
    "jaccard",
    "Jaccard",
    "intersection_over_union",
    "n_pos_ref",
    "n_neg_ref",
    "n_pos_seg",
    "n_neg_seg",
    "fp",
    "fn",
    "tp",
    "tn",
    "n_intersection",
    "n_union",
    "sensitivity",
    "specificity",
    "accuracy",
    "false_positive_rate",
    "positive_predictive_values",
    "negative_predictive_values",
    "informedness",
    "markedness",
    "vol_diff",
    "average_distance",
    "hausdorff_distance",
    "hausdorff95_distance",
    "com_ref",
    "classification_accuracy",
    "roc_auc",
    "roc",
)
MASKS = ("otsu_plus", "otsu_minus", "threshold_plus", "threshold_minus", "mean_plus", "brain")
PADDING_MODES = (
    "minimum",
    "maximum",
    "mean",
    "median",
    "constant",
    "edge",
    "linear_ramp",
    "reflect",
    "symmetric",
    "wrap",
    "empty",
)
EVENT_HANDLERS = (
    "model_saver",
    "model_restorer",
    "sampler_threading",
    "apply_gradients",
    "output_interpreter",
    "console_logger",
    "tensorboard_logger",
    "performance_logger",
)
EARLY_STOPPING_MODES = (
    "mean",
    "robust_mean",
    "median",
    "generalisation_loss",
    "median_smoothing",
    "validation_up",
)
DATASETS = ("all", "training", "validation", "inference")

# Words people bring from elsewhere, for the question "did you mean".
FOREIGN = {
    "learning_rate": "lr",
    "optimizer": "optimiser",
    "epochs": "max_iter",
    "iterations": "max_iter",
    "loss": "loss_type",
    "network": "name",
    "activation": "activation_function",
    "window_size": "spatial_window_size",
    "patch_size": "spatial_window_size",
    "weight_decay": "decay",
    "folder": "path_to_search",
    "spacing": "pixdim",
    "orientation": "axcodes",
}
