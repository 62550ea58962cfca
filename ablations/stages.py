"""The stages of the paper's chains of trainings: two ways to pre-train, and what follows each.

P = paper, G = Model Garden, ? = our choice. Amounts are the paper's; the profiles translate them.
"""

from ablations import cvrl
from ablations.toggles import OPTIMIZER
from harness.config.stages import PRE_TRAINING, Stage
from harness.config.toggles import PaperAmount

_RATE = f"{OPTIMIZER}.learning_rate.cosine.initial_learning_rate"
_DECAY = f"{OPTIMIZER}.learning_rate.cosine.decay_steps"
_WARMUP = f"{OPTIMIZER}.warmup.linear.warmup_steps"
_STEPS = "trainer.train_steps"
_BATCH = "task.train_data.global_batch_size"
_MODULES = "task.init_checkpoint_modules"

PRETRAIN = Stage(
    key="pretrain",
    label="pre-training",
    source="Section 4.5",
    meaning="supervised training on a large, weakly labelled set",
    changes={
        _STEPS: PaperAmount("stage_epochs", 4),  # P
        _DECAY: PaperAmount("stage_epochs", 4),
        _WARMUP: PaperAmount("stage_epochs", 0.1),  # ?, the same share of the training as the recipe's 5 of 200 epochs
        _RATE: PaperAmount("learning_rate", 1.6),  # P
        _BATCH: PaperAmount("clips", 1024),  # ?, the recipe's
        # ?, the paper names RandAugment for only one of its models; without it, one pre-training serves all of them.
        "task.train_data.aug_type": None,
    },
    dataset=PRE_TRAINING,
    evaluated=False,
)
FINETUNE = Stage(
    key="finetune",
    label="fine-tuning",
    source="Section 4.5",
    meaning="supervised training from pre-trained weights, with a new head",
    changes={
        _STEPS: PaperAmount("steps", 10_000),  # P
        _DECAY: PaperAmount("steps", 10_000),
        _WARMUP: PaperAmount("steps", 250),  # ?, as above
        _RATE: PaperAmount("learning_rate", 0.05),  # P
        _BATCH: PaperAmount("clips", 1024),  # ?, the recipe's
        _MODULES: "backbone",  # the head has other classes
    },
)
CVRL = Stage(
    key="cvrl",
    label="self-supervised pre-training",
    source="Section 5; CVRL (Qian et al. 2021)",
    meaning="two clips of a video are told from those of others, without labels",
    changes=cvrl.PRE_TRAINING,
    removes=cvrl.REMOVED_IN_PRE_TRAINING,
    evaluated=False,
)
LINEAR = Stage(
    key="linear",
    label="linear evaluation",
    source="Section 5; CVRL (Qian et al. 2021)",
    meaning="a linear classifier on a network that stays as it is",
    changes=cvrl.LINEAR_EVALUATION,
)
