"""The data sets of the paper, as they were distributed, and the generated ones that stand in for them."""

from harness.config.embedded_spec import EmbeddedSpec
from harness.config.experiment import DatasetInfo

# Sizes as the Model Garden states them (official.vision.configs.video_classification). Videos vanish from the web, so
# a lab often holds fewer; a verdict on fewer videos says so.
KINETICS_400 = DatasetInfo("Kinetics-400", classes=400, train_videos=215_570, validation_videos=17_706)
KINETICS_600 = DatasetInfo("Kinetics-600", classes=600, train_videos=366_016, validation_videos=27_780)
DATASETS = {facts.name: facts for facts in (KINETICS_400, KINETICS_600)}

# The paper pre-trains on this set (Section 4.5, Table 5), which is private: 70 million clips found by the labels of
# Kinetics-700. It does not say how many are held out: ?, one in a thousand.
WVT = DatasetInfo("WVT", classes=700, train_videos=70_000_000, validation_videos=70_000)

# Generated clips for the quick profile. To show what pre-training is worth, there are few labelled clips of the classes
# to learn, and many of other classes.
EMBEDDED = EmbeddedSpec()
FEW_LABELS = EmbeddedSpec(name="embedded-few", train_videos=128)
OTHER_MOTION = EmbeddedSpec(name="embedded-other", paths="other", seed=1)
# Videos that differ in their motion and little else, so that self-supervision learns motion: one background, one tint,
# and many copies of one scan (another one for validation), in one size and one brightness. With other digits in each
# video, some trainings learnt how the digits look, and others how they move.
MOTION_ALONE = EmbeddedSpec(name="embedded-motion", digits=10, sprite=(13, 13), contrast=(0.75, 0.75), alike=True)
GENERATED = {spec.name: spec for spec in (EMBEDDED, FEW_LABELS, OTHER_MOTION, MOTION_ALONE)}
