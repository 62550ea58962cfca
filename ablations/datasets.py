"""The data sets of the paper, as they were distributed."""

from harness.experiment import DataFacts

# Sizes as the Model Garden states them (official.vision.configs.video_classification). Videos vanish from the web, so
# what a lab holds is often less; a verdict on less says so.
KINETICS_400 = DataFacts("Kinetics-400", classes=400, train_videos=215_570, validation_videos=17_706)
KINETICS_600 = DataFacts("Kinetics-600", classes=600, train_videos=366_016, validation_videos=27_780)
DATASETS = {facts.name: facts for facts in (KINETICS_400, KINETICS_600)}
