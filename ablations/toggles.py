"""The toggles of the paper's Table 2, and the scaling axes of its Figure 2: one object each.

A toggle of your own is an object like these in a file of yours, named with `--toggles FILE`.
"""

from harness.config.toggles import VALUE, PaperAmount, Toggle

BACKBONE = "task.model.backbone.resnet_3d_rs"
OPTIMIZER = "trainer.optimizer_config"

LS = Toggle(
    key="ls",
    label="LS",
    source="Section 4.3",
    meaning="label smoothing",
    changes={"task.losses.label_smoothing": VALUE},
    default=0.1,
    bounds=(0.0, 0.999),
)
SD = Toggle(
    key="sd",
    label="SD",
    source="Section 4.3",
    meaning="stochastic depth, initial drop rate",
    changes={f"{BACKBONE}.stochastic_depth_drop_rate": VALUE},
    default=0.2,
    bounds=(0.0, 0.999),
)
WD = Toggle(
    key="wd",
    label="WD",
    source="Section 4.3",
    meaning="reduced weight decay",
    changes={"task.losses.l2_weight_decay": VALUE},
    default=4e-5,
    bounds=(0.0, 1.0),
)
EP = Toggle(
    key="ep",
    label="350-EP",
    source="Section 4.3",
    meaning="training epochs, in the paper's (the baseline has 200)",
    changes={
        "trainer.train_steps": PaperAmount("epochs"),
        f"{OPTIMIZER}.learning_rate.cosine.decay_steps": PaperAmount("epochs"),
    },
    default=350,
    bounds=(1, 100_000),
)
SJ = Toggle(
    key="sj",
    label="SJ",
    source="Section 3.2; range of the Garden's published YAML",
    meaning="scale jittering: smallest area of the random resized crop",
    changes={"task.train_data.aug_min_area_ratio": VALUE},
    default=0.08,
    bounds=(0.01, 1.0),
)
SE = Toggle(
    key="se",
    label="SE",
    source="Section 3.1",
    meaning="squeeze-and-excitation in every block, its ratio",
    changes={f"{BACKBONE}.se_ratio": VALUE},
    default=0.25,
    bounds=(0.0, 1.0),
)
DSTEM = Toggle(
    key="dstem",
    label="D-stem",
    source="Section 3.1, Table 1",
    meaning="3D ResNet-D stem: three convolutions in place of one",
    changes={f"{BACKBONE}.stem_type": VALUE},
    default="v1",
    choices=("v1", "v0"),
)
RA = Toggle(
    key="ra",
    label="RA",
    source="Section 3.2; layers and constants are the Garden's defaults",
    meaning="RandAugment, one draw of the policy for the whole clip; its magnitude",
    changes={
        "task.train_data.aug_type": {
            "type": "randaug",
            "randaug": {
                "num_layers": PaperAmount("policy_layers", 2),
                "magnitude": PaperAmount("policy_magnitude"),
                "cutout_const": PaperAmount("pixels", 40),
                "translate_const": PaperAmount("pixels", 10),
                "magnitude_std": 0.0,
                "prob_to_apply": None,
                "exclude_ops": [],
            },
        }
    },
    default=10,
    bounds=(0, 10),
)

TABLE_2 = (LS, SD, WD, EP, SJ, SE, DSTEM, RA)

# What R3D-RS adds to R3D in training and architecture: Table 2, rows 2 to 8.
R3D_RS = tuple(toggle.at() for toggle in TABLE_2 if toggle is not RA)

EMA = Toggle(
    key="ema",
    label="EMA",
    source="the Garden's published YAML; the paper is silent",
    meaning="moving average of all weights, its decay; evaluation uses the average",
    changes={
        f"{OPTIMIZER}.ema": {
            "name": "ExponentialMovingAverage",
            "average_decay": VALUE,
            # All variables, so that batch normalization's statistics are averaged with the weights they belong to.
            "trainable_weights_only": False,
            "start_step": 0,
            # Without it the average, which starts at zero, stays biased towards zero for the first 1/(1-decay) steps.
            "dynamic_decay": True,
            "clipnorm": None,
            "clipvalue": None,
            "global_clipnorm": None,
        }
    },
    default=0.9999,
    bounds=(0.0, 0.999999),
)

DEPTH = Toggle(
    key="depth",
    label="depth",
    source="Section 3.3, Figure 2",
    meaning="layers of the network",
    changes={
        f"{BACKBONE}.model_id": PaperAmount("depth"),
        **{f"network.blocks[{stage}]": PaperAmount(f"blocks[{stage}]") for stage in range(4)},
    },
    default=50,
    choices=(50, 101, 152, 200, 270, 300),
    axis=True,
)
FRAMES = Toggle(
    key="frames",
    label="frames",
    source="Section 3.3, Table 1; 32x2 and 48x2 are the Garden's reading",
    meaning="frames of a clip, of which the network sees every second one; 32x2 and 48x2: it sees 32 and 48",
    changes={
        "task.train_data.feature_shape[0]": PaperAmount("frames"),
        "task.validation_data.feature_shape[0]": PaperAmount("frames"),
    },
    default=32,
    choices=(32, 48, 64, "32x2", "48x2"),
    axis=True,
)
RESOLUTION = Toggle(
    key="resolution",
    label="resolution",
    source="Section 4.4; 320 for evaluating at 288 is our choice",
    meaning="side of the training crop; evaluation is one step larger (256, 288, 320)",
    changes={
        "task.train_data.feature_shape[1]": PaperAmount("pixels"),
        "task.train_data.feature_shape[2]": PaperAmount("pixels"),
        "task.validation_data.feature_shape[1]": PaperAmount("evaluation_pixels"),
        "task.validation_data.feature_shape[2]": PaperAmount("evaluation_pixels"),
        "task.validation_data.min_image_size": PaperAmount("evaluation_pixels"),
    },
    default=224,
    choices=(224, 256, 288),
    axis=True,
)

AXES = (DEPTH, FRAMES, RESOLUTION)
TOGGLES = {toggle.key: toggle for toggle in (*TABLE_2, EMA, *AXES)}
